/* Matrix products that are too small for a BLAS call to pay: C[m,n] (+)= op(A)[m,k] op(B)[k,n], row-major,
 * one thread.
 *
 * Include after vec.h, once for each of its inclusions. The work is done by blocks of C that stay in
 * registers:
 *
 *          b: W * vecs columns                 for p in 0..k-1:
 *             [ k rows ]                           load row p of b
 *     a   +------------------+                     for each row i: acc[i] += a[i,p] * row
 *     rows|  acc[rows][vecs] |                 then store acc, or add it to C
 *         +------------------+
 *
 * The rows of b are read where they lie, or from a panel on the stack when B is transposed, when the columns
 * do not fill the last vector (the panel is padded with zeros), or when many blocks of rows read them again.
 * A is read by single elements and may lie either way. Plain IEEE accumulation: 0 * inf is NaN as it should
 * be, and equal inputs give equal bits wherever they lie.
 */

#ifndef MG_GEMM_H
#define MG_GEMM_H

#define mg_gemm_block MG_NAME(mg_gemm_block)
#define mg_gemm_squares MG_NAME(mg_gemm_squares)
#define mg_gemm_edge MG_NAME(mg_gemm_edge)
#define mg_gemm_pack MG_NAME(mg_gemm_pack)
#define mg_gemm_rows MG_NAME(mg_gemm_rows)
#define mg_gemm_dots MG_NAME(mg_gemm_dots)
#define MG_PANEL_BYTES 32768
#define MG_APART __attribute__((noinline, unused)) static

#endif

/* Rows of a block: with 2 vectors a row, as many accumulators as leave registers for b and a (32 registers,
 * or 16). */
#undef MG_ROWS
#if MG_BYTES == 64 || !MG_X86
#define MG_ROWS 8
#else
#define MG_ROWS 6
#endif

/* One block. Element (i, p) of op(A) is a[i * a_row + p * a_col]; part is the number of valid columns in the
 * last vector, 0 if all are. */
MG_INLINE void mg_gemm_block(int rows, int vecs, ptrdiff_t part, ptrdiff_t k, const T *a, ptrdiff_t a_row,
                             ptrdiff_t a_col, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    V acc[MG_ROWS][4];
    MG_UNROLL
    for (int i = 0; i < rows; i++)
        MG_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[i][j] = K(0);
    for (ptrdiff_t p = 0; p < k; p++, a += a_col, b += ldb) {
        V row[4];
        MG_UNROLL
        for (int j = 0; j < vecs; j++)
            row[j] = v_load(b + j * W);
        MG_UNROLL
        for (int i = 0; i < rows; i++) {
            V factor = K(a[i * a_row]);
            MG_UNROLL
            for (int j = 0; j < vecs; j++)
                acc[i][j] = v_fma(factor, row[j], acc[i][j]);
        }
    }
    MG_UNROLL
    for (int i = 0; i < rows; i++)
        MG_UNROLL
        for (int j = 0; j < vecs; j++) {
            T *out = c + i * ldc + j * W;
            if (j < vecs - 1 || part == 0)
                v_store(out, accumulate ? v_load(out) + acc[i][j] : acc[i][j]);
            else
                v_store_part(out, accumulate ? v_load_part(out, part, 0) + acc[i][j] : acc[i][j], part);
        }
}

/* All rows of one panel of columns: vecs vectors wide. A remainder is shared by the last two blocks. */
MG_INLINE void mg_gemm_rows(int vecs, ptrdiff_t part, ptrdiff_t m, ptrdiff_t k, const T *a, ptrdiff_t a_row,
                            ptrdiff_t a_col, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    while (m > 0) {
        ptrdiff_t rows = m <= MG_ROWS ? m : m < 2 * MG_ROWS ? (m + 1) / 2 : MG_ROWS;
        switch (rows) {
#define MG_CASE(r)                                                                                           \
    case r:                                                                                                  \
        if (r <= 2 || vecs <= 2)                                                                             \
            mg_gemm_block(r, vecs, part, k, a, a_row, a_col, b, ldb, c, ldc, accumulate);                    \
        break;
            MG_CASE(1)
            MG_CASE(2)
            MG_CASE(3)
            MG_CASE(4)
            MG_CASE(5)
            MG_CASE(6)
#if MG_ROWS == 8
            MG_CASE(7)
            MG_CASE(8)
#endif
#undef MG_CASE
        }
        m -= rows;
        a += rows * a_row;
        c += rows * ldc;
    }
}

/* W rows of B become W columns of the panel, a W x W square at a time. A function of its own because inlined
 * into the loops around it its many addresses leave the registers. */
MG_APART void mg_gemm_squares(ptrdiff_t squares, const T *b, ptrdiff_t ldb, T *panel, ptrdiff_t stride)
{
    for (; squares > 0; squares--, b += W, panel += W * stride) {
        V square[W];
        v_load_transposed(square, b, ldb);
        MG_UNROLL
        for (int i = 0; i < W; i++)
            v_store(panel + i * stride, square[i]);
    }
}

/* The same at an edge of B, where only valid rows or depth columns are left. */
MG_APART void mg_gemm_edge(const T *b, ptrdiff_t ldb, ptrdiff_t valid, ptrdiff_t depth, T *panel,
                           ptrdiff_t stride)
{
    V square[W];
    for (int i = 0; i < W; i++)
        square[i] = i >= valid ? K(0) : depth < W ? v_load_part(b + i * ldb, depth, 0) : v_load(b + i * ldb);
    v_transpose(square);
    for (int i = 0; i < W && i < depth; i++)
        v_store(panel + i * stride, square[i]);
}

/* panel[k, vecs * W] = op(B)[:k, :columns], padded with zeros. */
MG_APART void mg_gemm_pack(int tb, int vecs, ptrdiff_t columns, ptrdiff_t k, const T *b, ptrdiff_t ldb,
                           T *panel)
{
    ptrdiff_t stride = vecs * W;
    for (; columns > 0; columns -= W, panel += W, b += tb ? W * ldb : W) {
        if (tb) {
            ptrdiff_t squares = columns >= W ? k / W : 0;
            mg_gemm_squares(squares, b, ldb, panel, stride);
            for (ptrdiff_t p = squares * W; p < k; p += W)
                mg_gemm_edge(b + p, ldb, columns, k - p, panel + p * stride, stride);
        } else if (columns >= W) {
            for (ptrdiff_t p = 0; p < k; p++)
                v_store(panel + p * stride, v_load(b + p * ldb));
        } else {
            for (ptrdiff_t p = 0; p < k; p++)
                v_store(panel + p * stride, v_load_part(b + p * ldb, columns, 0));
        }
    }
}

/* c[j] (+)= sum_p x[p] b[j,p]: a row times a transposed matrix, W dot products at a time, without packing. */
MG_INLINE void mg_gemm_dots(ptrdiff_t n, ptrdiff_t k, const T *x, const T *b, ptrdiff_t ldb, T *c,
                            int accumulate)
{
    ptrdiff_t j = 0;
    for (; j + W <= n; j += W) {
        V acc[W];
        MG_UNROLL
        for (int i = 0; i < W; i++)
            acc[i] = K(0);
        ptrdiff_t p = 0;
        for (; p + W <= k; p += W) {
            V xs = v_load(x + p);
            MG_UNROLL
            for (int i = 0; i < W; i++)
                acc[i] = v_fma(xs, v_load(b + (j + i) * ldb + p), acc[i]);
        }
        if (p < k) {
            V xs = v_load_part(x + p, k - p, 0);
            MG_UNROLL
            for (int i = 0; i < W; i++)
                acc[i] = v_fma(xs, v_load_part(b + (j + i) * ldb + p, k - p, 0), acc[i]);
        }
        v_transpose(acc);
        V sum = acc[0];
        MG_UNROLL
        for (int i = 1; i < W; i++)
            sum += acc[i];
        v_store(c + j, accumulate ? v_load(c + j) + sum : sum);
    }
    for (; j < n; j++) {
        V acc = K(0);
        ptrdiff_t p = 0;
        for (; p + W <= k; p += W)
            acc = v_fma(v_load(x + p), v_load(b + j * ldb + p), acc);
        if (p < k)
            acc = v_fma(v_load_part(x + p, k - p, 0), v_load_part(b + j * ldb + p, k - p, 0), acc);
        c[j] = (accumulate ? c[j] : 0) + v_hsum(acc);
    }
}

/* C (+)= op(A) op(B). ta: A is stored as (k, m), else (m, k); tb: B is stored as (n, k), else (k, n); the
 * leading dimensions are the distances between stored rows. C may not overlap A or B. */
MG_APART void MG_NAME(mg_gemm)(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a,
                               ptrdiff_t lda, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    /* A column is a row of the transposed product, and rows are what vectors can hold. */
    if (n == 1 && ldc == 1) {
        const T *matrix = a;
        ptrdiff_t distance = lda;
        int transposed = ta;
        a = b, lda = ldb, ta = !tb;
        b = matrix, ldb = distance, tb = !transposed;
        n = m, m = 1;
    }
    if (m == 1 && tb && (!ta || lda == 1)) {
        mg_gemm_dots(n, k, a, b, ldb, c, accumulate);
        return;
    }
    T panel[MG_PANEL_BYTES / sizeof(T)] __attribute__((aligned(64)));
    ptrdiff_t a_row = ta ? 1 : lda, a_col = ta ? lda : 1;
    int widest = m <= 2 ? 4 : 2; /* few rows have few accumulators: more columns keep the adders busy */
    ptrdiff_t depth = MG_PANEL_BYTES / (widest * MG_BYTES);
    ptrdiff_t p = 0;
    do {
        ptrdiff_t ps = k - p < depth ? k - p : depth;
        const T *left = a + p * a_col, *top = tb ? b + p : b + p * ldb;
        for (ptrdiff_t j = 0; j < n;) {
            ptrdiff_t columns = n - j < widest * W ? n - j : widest * W;
            int vecs = (int)((columns + W - 1) / W);
            const T *rows = tb ? top + j * ldb : top + j;
            ptrdiff_t distance = ldb;
            if (tb || columns % W || m > 4 * MG_ROWS) {
                mg_gemm_pack(tb, vecs, columns, ps, rows, ldb, panel);
                rows = panel;
                distance = vecs * W;
            }
            switch (vecs) {
#define MG_CASE(v)                                                                                           \
    case v:                                                                                                  \
        mg_gemm_rows(v, columns % W, m, ps, left, a_row, a_col, rows, distance, c + j, ldc, accumulate);     \
        break;
                MG_CASE(1)
                MG_CASE(2)
                MG_CASE(3)
                MG_CASE(4)
#undef MG_CASE
            }
            j += columns;
        }
        p += ps;
        accumulate = 1;
    } while (p < k);
}
