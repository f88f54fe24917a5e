/* Matrix products: C[m,n] (+)= op(A)[m,k] op(B)[k,n], row-major.
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
 * and the loops around them each leave something in a cache:
 *
 *     strips of columns of C      the strip's panels of B, where several slabs of A meet them  (L3)
 *     pieces of k                 as deep as a panel may be                                    (L1)
 *     slabs of rows of C          the slab of A                                                (L2)
 *     panels of columns of C      one panel of B, packed when the first slab meets it          (L1)
 *
 * The rows of b are read where they lie, or from a panel when B is transposed, when the columns do not fill
 * the last vector (the panel is padded with zeros), or when many blocks of rows read them again. A is read by
 * single elements and may lie either way; where many panels read it again its slab is packed, as panels of
 * MG_TALL rows. Large products are shared among threads as tiles of C, each a product of its own.
 *
 * Plain IEEE accumulation: 0 * inf is NaN as it should be. Each element of C is a sum in the order of k, in
 * pieces that depend on m, n and k alone, so equal inputs give equal bits wherever they lie and however many
 * threads there are.
 */

#ifndef MG_GEMM_H
#define MG_GEMM_H

#include "pool.h"

#define mg_gemm_block MG_NAME(mg_gemm_block)
#define mg_gemm_squares MG_NAME(mg_gemm_squares)
#define mg_gemm_edge MG_NAME(mg_gemm_edge)
#define mg_gemm_pack MG_NAME(mg_gemm_pack)
#define mg_gemm_pack_slab MG_NAME(mg_gemm_pack_slab)
#define mg_gemm_rows MG_NAME(mg_gemm_rows)
#define mg_gemm_dots MG_NAME(mg_gemm_dots)
#define mg_gemm_one_of MG_NAME(mg_gemm_one_of)
#define mg_gemm_edge_of MG_NAME(mg_gemm_edge_of)
#define mg_gemm_grid MG_NAME(mg_gemm_grid)
#define mg_gemm_panel MG_NAME(mg_gemm_panel)
#define mg_gemm_piece MG_NAME(mg_gemm_piece)
#define mg_gemm_row MG_NAME(mg_gemm_row)
#define mg_gemm_tile MG_NAME(mg_gemm_tile)
/* Caches, in bytes, and shares. Tests make them small, so that every loop runs. */
#ifndef MG_PANEL_BYTES
#define MG_PANEL_BYTES 32768     /* a panel of B: L1 */
#define MG_SLAB_BYTES 196608     /* a packed slab of A: less than half of the smallest L2 */
#define MG_STRIP_BYTES 1048576   /* a strip's panels: a core's part of L3 */
#define MG_FAR_BYTES 524288      /* a larger piece of A has left L2 by the time it is read again */
#define MG_SHARE (1 << 21)       /* multiplications that are worth a thread */
#endif
#define MG_WIDEST(m) ((m) <= 2 ? 4 : 2) /* vectors of a panel: few rows have few accumulators, so more columns */
#define MG_APART __attribute__((noinline, unused)) static

#endif

/* Rows of a block: with 2 vectors a row, as many accumulators as leave registers for b and a (32 registers,
 * or 16). Rows of a packed panel of A: whole vectors, and whole blocks. */
#undef MG_ROWS
#undef MG_TALL
#if MG_BYTES == 64 || !MG_X86
#define MG_ROWS 8
#define MG_TALL (W < 8 ? 8 : W)
#else
#define MG_ROWS 6
#define MG_TALL (3 * W)
#endif

_Static_assert(MG_PANEL_BYTES / (4 * MG_BYTES) % W == 0, "a piece of k is some vectors deep");

/* One block. Element (i, p) of op(A) is a[i * a_row + p * a_col]; part is the number of valid columns in the
 * last vector, 0 if all are; fetch: C is far away, so that asking for it first saves a wait. */
MG_INLINE void mg_gemm_block(int rows, int vecs, int fetch, ptrdiff_t part, ptrdiff_t k, const T *a,
                             ptrdiff_t a_row, ptrdiff_t a_col, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc,
                             int accumulate)
{
    V acc[MG_ROWS][4];
    MG_UNROLL
    for (int i = 0; i < rows; i++)
        MG_UNROLL
        for (int j = 0; j < vecs; j++)
            acc[i][j] = K(0);
    if (fetch)
        MG_UNROLL
        for (int i = 0; i < rows; i++)
            MG_UNROLL
            for (int j = 0; j < vecs; j++)
                __builtin_prefetch(c + i * ldc + j * W, 1);
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
MG_INLINE void mg_gemm_rows(int vecs, int fetch, ptrdiff_t part, ptrdiff_t m, ptrdiff_t k, const T *a,
                            ptrdiff_t a_row, ptrdiff_t a_col, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc,
                            int accumulate)
{
    while (m > 0) {
        ptrdiff_t rows = m <= MG_ROWS ? m : m < 2 * MG_ROWS ? (m + 1) / 2 : MG_ROWS;
        switch (rows) {
#define MG_CASE(r)                                                                                           \
    case r:                                                                                                  \
        if (r <= 2 || vecs <= 2)                                                                             \
            mg_gemm_block(r, vecs, fetch, part, k, a, a_row, a_col, b, ldb, c, ldc, accumulate);             \
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

/* slab = panels of MG_TALL rows of op(A)[:m, :k], one after the other. Where A is transposed the panels are filled
 * side by side, because its rows are long and far apart. */
MG_APART void mg_gemm_pack_slab(int ta, ptrdiff_t m, ptrdiff_t k, const T *a, ptrdiff_t lda,
                                T *slab)
{
    if (!ta) {
        for (ptrdiff_t i = 0; i < m; i += MG_TALL)
            mg_gemm_pack(1, MG_TALL / W, m - i < MG_TALL ? m - i : MG_TALL, k, a + i * lda, lda, slab + i * k);
        return;
    }
    for (ptrdiff_t p = 0; p < k; p++, a += lda) {
        T *row = slab + p * MG_TALL;
        ptrdiff_t i = 0;
        for (; i + MG_TALL <= m; i += MG_TALL, row += k * MG_TALL) {
            MG_UNROLL
            for (int j = 0; j < MG_TALL / W; j++)
                v_store(row + j * W, v_load(a + i + j * W));
        }
        for (; i + W <= m; i += W, row += W)
            v_store(row, v_load(a + i));
        if (i < m)
            v_store(row, v_load_part(a + i, m - i, 0));
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

/* One panel of C's columns, all rows of a slab: rows of a packed one go in panels of their own. */
MG_INLINE void mg_gemm_panel(int vecs, ptrdiff_t part, ptrdiff_t m, ptrdiff_t k, const T *a, ptrdiff_t a_row,
                             ptrdiff_t a_col, const T *slab, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc,
                             int accumulate)
{
    if (slab == NULL)
        mg_gemm_rows(vecs, 0, part, m, k, a, a_row, a_col, b, ldb, c, ldc, accumulate);
    else
        for (; m > 0; m -= MG_TALL, slab += MG_TALL * k, c += MG_TALL * ldc)
            mg_gemm_rows(vecs, 1, part, m < MG_TALL ? m : MG_TALL, k, slab, 1, MG_TALL, b, ldb, c, ldc,
                         accumulate);
}

/* All panels, `widest` columns each, of a product whose depth fits them. The slab is A packed, or NULL. The strip
 * has room for the panels of B, and `ready` says that they are there; or it is NULL. */
MG_APART void mg_gemm_piece(ptrdiff_t widest, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a,
                            ptrdiff_t a_row, ptrdiff_t a_col, const T *slab, int tb, const T *b,
                            ptrdiff_t ldb, T *strip, int ready, T *c, ptrdiff_t ldc, int accumulate)
{
    T panel[MG_PANEL_BYTES / sizeof(T)] __attribute__((aligned(64)));
    for (ptrdiff_t j = 0; j < n; j += widest) {
        const ptrdiff_t columns = n - j < widest ? n - j : widest;
        const int vecs = (int)((columns + W - 1) / W);
        const T *top = tb ? b + j * ldb : b + j;
        ptrdiff_t distance = ldb;
        if (tb || columns % W || m > 4 * MG_ROWS) {
            T *packed = strip != NULL ? strip + j * k : panel;
            if (!ready)
                mg_gemm_pack(tb, vecs, columns, k, top, ldb, packed);
            top = packed;
            distance = vecs * W;
        }
        switch (vecs) {
#define MG_CASE(v)                                                                                           \
    case v:                                                                                                  \
        mg_gemm_panel(v, columns % W, m, k, a, a_row, a_col, slab, top, distance, c + j, ldc, accumulate);   \
        break;
            MG_CASE(1)
            MG_CASE(2)
            MG_CASE(3)
            MG_CASE(4)
#undef MG_CASE
        }
    }
}

/* A product on one thread. Where memory for packing is refused it does without. */
MG_APART void mg_gemm_tile(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a, ptrdiff_t lda,
                           const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    const ptrdiff_t widest = MG_WIDEST(m) * W, deepest = MG_PANEL_BYTES / (widest * (ptrdiff_t)sizeof(T));
    const ptrdiff_t pieces = (k + deepest - 1) / deepest;
    const ptrdiff_t depth = pieces > 1 ? ((k + pieces - 1) / pieces + W - 1) / W * W : k;
    const ptrdiff_t bytes = depth * (ptrdiff_t)sizeof(T);
    ptrdiff_t slab_rows = m, strip_columns = n;
    T *slab = NULL, *strip = NULL;
    if (m > MG_ROWS && (n >= 16 * W || (n >= 8 * W && m * bytes > MG_FAR_BYTES))) {
        const ptrdiff_t most = MG_SLAB_BYTES / (bytes + 1) / MG_TALL * MG_TALL;
        const ptrdiff_t rows = m < most ? (m + MG_TALL - 1) / MG_TALL * MG_TALL : most;
        slab = mg_workspace_take((size_t)(rows * bytes));
        slab_rows = slab != NULL ? rows : m;
    }
    if (m > slab_rows) {
        const ptrdiff_t most = MG_STRIP_BYTES / (bytes + 1) / (2 * W) * (2 * W);
        const ptrdiff_t columns = n < most ? (n + 2 * W - 1) / (2 * W) * (2 * W) : most;
        strip = mg_workspace_take((size_t)(columns * bytes));
        strip_columns = strip != NULL ? columns : n;
    }
    for (ptrdiff_t j = 0; j < n; j += strip_columns) {
        const ptrdiff_t js = n - j < strip_columns ? n - j : strip_columns;
        ptrdiff_t p = 0;
        do {
            const ptrdiff_t ps = k - p < depth ? k - p : depth;
            const T *top = tb ? b + j * ldb + p : b + p * ldb + j;
            for (ptrdiff_t i = 0; i < m; i += slab_rows) {
                const ptrdiff_t is = m - i < slab_rows ? m - i : slab_rows;
                const T *left = ta ? a + p * lda + i : a + i * lda + p;
                if (slab != NULL)
                    mg_gemm_pack_slab(ta, is, ps, left, lda, slab);
                mg_gemm_piece(widest, is, js, ps, left, ta ? 1 : lda, ta ? lda : 1, slab, tb, top, ldb, strip,
                              strip != NULL && i > 0, c + i * ldc + j, ldc, accumulate || p > 0);
            }
            p += ps;
        } while (p < k);
    }
    mg_workspace_give(strip);
    mg_workspace_give(slab);
}

/* c[n] (+)= x[k] op(B)[k,n], the elements of x and c any distance apart. */
MG_APART void mg_gemm_row(int tb, ptrdiff_t n, ptrdiff_t k, const T *x, ptrdiff_t x_step, const T *b,
                          ptrdiff_t ldb, T *c, ptrdiff_t c_step, int accumulate)
{
    T side_by_side[MG_PANEL_BYTES / sizeof(T)];
    const ptrdiff_t room = MG_PANEL_BYTES / (ptrdiff_t)sizeof(T);
    if (c_step != 1 && n > 1) {
        for (ptrdiff_t j = 0; j < n; j += room) {
            const ptrdiff_t js = n - j < room ? n - j : room;
            for (ptrdiff_t i = 0; accumulate && i < js; i++)
                side_by_side[i] = c[(j + i) * c_step];
            mg_gemm_row(tb, js, k, x, x_step, tb ? b + j * ldb : b + j, ldb, side_by_side, 1, accumulate);
            for (ptrdiff_t i = 0; i < js; i++)
                c[(j + i) * c_step] = side_by_side[i];
        }
        return;
    }
    if (!tb) {
        mg_gemm_tile(1, 0, 1, n, k, x, x_step, b, ldb, c, 1, accumulate);
        return;
    }
    ptrdiff_t p = 0;
    do {
        const ptrdiff_t ps = k - p < room ? k - p : room;
        const T *part = x + p;
        if (x_step != 1) {
            for (ptrdiff_t i = 0; i < ps; i++)
                side_by_side[i] = x[(p + i) * x_step];
            part = side_by_side;
        }
        mg_gemm_dots(n, ps, part, b + p, ldb, c, accumulate || p > 0);
        p += ps;
    } while (p < k);
}

/* A product shared as a grid of tiles, whose edges are those of packed panels. */
typedef struct {
    int ta, tb, accumulate;
    ptrdiff_t m, n, k, lda, ldb, ldc, down, across;
    const T *a, *b;
    T *c;
} mg_gemm_grid;

MG_INLINE ptrdiff_t mg_gemm_edge_of(ptrdiff_t at, ptrdiff_t tiles, ptrdiff_t size, ptrdiff_t unit)
{
    return at == tiles ? size : size / unit * at / tiles * unit;
}

MG_APART void mg_gemm_one_of(void *grid, int at)
{
    const mg_gemm_grid *g = grid;
    const ptrdiff_t row = at / g->across, column = at % g->across;
    const ptrdiff_t i = mg_gemm_edge_of(row, g->down, g->m, MG_TALL);
    const ptrdiff_t j = mg_gemm_edge_of(column, g->across, g->n, 2 * W);
    const ptrdiff_t m = mg_gemm_edge_of(row + 1, g->down, g->m, MG_TALL) - i;
    const ptrdiff_t n = mg_gemm_edge_of(column + 1, g->across, g->n, 2 * W) - j;
    mg_gemm_tile(g->ta, g->tb, m, n, g->k, g->ta ? g->a + i : g->a + i * g->lda, g->lda,
                 g->tb ? g->b + j * g->ldb : g->b + j, g->ldb, g->c + i * g->ldc + j, g->ldc, g->accumulate);
}

/* C (+)= op(A) op(B). ta: A is stored as (k, m), else (m, k); tb: B is stored as (n, k), else (k, n); the
 * leading dimensions are the distances between stored rows. C may not overlap A or B. */
MG_APART void MG_NAME(mg_gemm)(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a,
                               ptrdiff_t lda, const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    if (n == 1) { /* a column is a row of the transposed product, and rows are what vectors can hold */
        mg_gemm_row(!ta, m, k, b, tb ? 1 : ldb, a, lda, c, ldc, accumulate);
        return;
    }
    if (m == 1 && tb) {
        mg_gemm_row(1, n, k, a, ta ? lda : 1, b, ldb, c, 1, accumulate);
        return;
    }
    if (n < 8 * W && k <= MG_PANEL_BYTES / (4 * MG_BYTES)) {
        mg_gemm_piece(MG_WIDEST(m) * W, m, n, k, a, ta ? 1 : lda, ta ? lda : 1, NULL, tb, b, ldb, NULL, 0, c,
                      ldc, accumulate);
        return;
    }
    const double shares = (double)m * n * k / MG_SHARE;
    if (shares < 2 || mg_threads() == 1) {
        mg_gemm_tile(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
        return;
    }
    mg_gemm_grid grid = {ta, tb, accumulate, m, n, k, lda, ldb, ldc, 1, 1, a, b, c};
    const ptrdiff_t tiles = shares < mg_threads() ? (ptrdiff_t)shares : mg_threads();
    double least = INFINITY; /* time of a tile: its multiplications, and packing its sides, in that unit */
    for (ptrdiff_t down = 1; down <= tiles && down <= m / MG_TALL; down++) {
        const ptrdiff_t most = n / (2 * W), across = tiles / down < most ? tiles / down : most;
        const double rows = (double)m / down, columns = (double)n / (across > 0 ? across : 1);
        const double time = rows * columns + 8 * (rows + columns);
        if (across > 0 && time < least) {
            least = time;
            grid.down = down;
            grid.across = across;
        }
    }
    mg_parallel(mg_gemm_one_of, &grid, (int)(grid.down * grid.across));
}
