/* Products with a matrix that is used again and again: packed once into panels, then a few rows at a time against all of
 * a panel's columns, in registers.
 *
 * Include after vec.h, once for each of its inclusions. A panel holds up to MG_PANEL_VECS vectors of columns side by side,
 * each padded with zeros to W:
 *
 *          panel: vecs * W columns             for p in 0..k-1:
 *             [ k rows ]                           load row p of the panel
 *     a   +------------------+                     for each row i: acc[i] += a[i,p] * row
 *     rows|  acc[rows][vecs] |                 then store acc to the tile, from which the caller goes on
 *         +------------------+
 *
 * Few rows have few accumulators: they take several p at once into accumulators of their own, so that no addition waits
 * for the one before it. Plain IEEE accumulation; what padding computes is never stored.
 */

#ifndef MG_PANELS_H
#define MG_PANELS_H

enum { MG_PANEL_VECS = 4, MG_PANEL_ROWS = 8 };

#define mg_panel_block MG_NAME(mg_panel_block)
#define mg_panel_product MG_NAME(mg_panel_product)
#define mg_panel_products MG_NAME(mg_panel_products)
#define mg_panel_rows MG_NAME(mg_panel_rows)
#define mg_pack_rows MG_NAME(mg_pack_rows)
#define mg_pack_columns MG_NAME(mg_pack_columns)

#define MG_APART static __attribute__((noinline, unused))

#endif

/* tile[rows, vecs * W] = a[rows, k] panel[k, vecs * W] */
MG_INLINE void mg_panel_block(const int rows, const int vecs, ptrdiff_t k, const T *a, ptrdiff_t lda, const T *panel,
                              T *tile)
{
    const int cells = rows * vecs, strands = cells >= 8 ? 1 : cells >= 4 ? 2 : 4;
    V acc[MG_PANEL_ROWS * MG_PANEL_VECS];
    MG_UNROLL
    for (int i = 0; i < strands * rows; i++)
        MG_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[i * vecs + j] = K(0);
    ptrdiff_t p = 0;
    for (; p + strands <= k; p += strands, panel += strands * vecs * W)
        MG_UNROLL
        for (int s = 0; s < strands; s++) {
            V row[MG_PANEL_VECS];
            MG_UNROLL
            for (int j = 0; j < vecs; j++)
                row[j] = v_load(panel + (s * vecs + j) * W);
            MG_UNROLL
            for (int i = 0; i < rows; i++) {
                V factor = K(a[i * lda + p + s]);
                MG_UNROLL
                for (int j = 0; j < vecs; j++)
                    acc[(s * rows + i) * vecs + j] = v_fma(factor, row[j], acc[(s * rows + i) * vecs + j]);
            }
        }
    if (strands > 1)
        for (; p < k; p++, panel += vecs * W)
            MG_UNROLL
            for (int i = 0; i < rows; i++)
                MG_UNROLL
                for (int j = 0; j < vecs; j++)
                    acc[i * vecs + j] = v_fma(K(a[i * lda + p]), v_load(panel + j * W), acc[i * vecs + j]);
    MG_UNROLL
    for (int s = 1; s < strands; s++)
        MG_UNROLL
        for (int i = 0; i < cells; i++)
            acc[i] += acc[s * cells + i];
    MG_UNROLL
    for (int i = 0; i < rows; i++)
        MG_UNROLL
        for (int j = 0; j < vecs; j++)
            v_store(tile + (i * vecs + j) * W, acc[i * vecs + j]);
}

typedef void (*mg_panel_product)(ptrdiff_t k, const T *a, ptrdiff_t lda, const T *panel, T *tile);

#define MG_BLOCK(vecs, rows)                                                                                                  \
    MG_APART void MG_NAME(MG_CAT3(mg_panel_, vecs, rows))(ptrdiff_t k, const T *a, ptrdiff_t lda, const T *panel, T *tile)    \
    {                                                                                                                         \
        mg_panel_block(rows, vecs, k, a, lda, panel, tile);                                                                   \
    }
/* As many accumulators as leave registers for the panel's row and a factor: of 32, or of 16. */
#undef MG_BLOCKS
#if MG_BYTES == 64 || !MG_X86
#define MG_BLOCKS(f)                                                                                                          \
    f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(1, 5) f(1, 6) f(1, 7) f(1, 8)                                                           \
    f(2, 1) f(2, 2) f(2, 3) f(2, 4) f(2, 5) f(2, 6) f(2, 7) f(2, 8)                                                           \
    f(3, 1) f(3, 2) f(3, 3) f(3, 4) f(3, 5) f(3, 6) f(3, 7) f(3, 8)                                                           \
    f(4, 1) f(4, 2) f(4, 3) f(4, 4) f(4, 5) f(4, 6)
MG_INLINE int mg_panel_rows(int vecs) { return vecs == 4 ? 6 : 8; }
#else
#define MG_BLOCKS(f)                                                                                                          \
    f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(1, 5) f(1, 6) f(1, 7) f(1, 8)                                                           \
    f(2, 1) f(2, 2) f(2, 3) f(2, 4) f(2, 5) f(2, 6)                                                                           \
    f(3, 1) f(3, 2) f(3, 3) f(3, 4)                                                                                           \
    f(4, 1) f(4, 2) f(4, 3)
MG_INLINE int mg_panel_rows(int vecs) { return vecs == 1 ? 8 : 12 / vecs; }
#endif
MG_BLOCKS(MG_BLOCK)
#define MG_BLOCK_ENTRY(vecs, rows) [vecs - 1][rows - 1] = MG_NAME(MG_CAT3(mg_panel_, vecs, rows)),
static const mg_panel_product mg_panel_products[MG_PANEL_VECS][MG_PANEL_ROWS] = {MG_BLOCKS(MG_BLOCK_ENTRY)};
#undef MG_BLOCK
#undef MG_BLOCK_ENTRY

/* One vector of a panel: column l is row l of the `valid` rows at `a`; `stride` is the panel's width. */
MG_APART void mg_pack_rows(const T *a, ptrdiff_t lda, ptrdiff_t valid, ptrdiff_t k, T *panel, ptrdiff_t stride)
{
    V square[W];
    ptrdiff_t p = 0;
    if (valid >= W)
        for (; p + W <= k; p += W) {
            v_load_transposed(square, a + p, lda);
            MG_UNROLL
            for (int i = 0; i < W; i++)
                v_store(panel + (p + i) * stride, square[i]);
        }
    for (; p < k; p += W) {
        const ptrdiff_t depth = k - p < W ? k - p : W;
        for (int i = 0; i < W; i++)
            square[i] = i >= valid ? K(0) : depth < W ? v_load_part(a + i * lda + p, depth, 0) : v_load(a + i * lda + p);
        v_transpose(square);
        for (int i = 0; i < depth; i++)
            v_store(panel + (p + i) * stride, square[i]);
    }
}

/* The same for columns that are columns of `a`. */
MG_APART void mg_pack_columns(const T *a, ptrdiff_t lda, ptrdiff_t valid, ptrdiff_t k, T *panel, ptrdiff_t stride)
{
    for (ptrdiff_t p = 0; p < k; p++)
        v_store(panel + p * stride, valid >= W ? v_load(a + p * lda) : v_load_part(a + p * lda, valid, 0));
}
