/* One symbol a function: <name>_f<bits>_<isa>, looping over arrays of any length. */
#include "vec.h"
#include "gemm.h"

#define EACH(n, expression)                                                                                  \
    for (ptrdiff_t i = 0; i < (n); i += W) {                                                                 \
        ptrdiff_t m = (n)-i;                                                                                 \
        V x = m < W ? v_load_part(xs + i, m, 1) : v_load(xs + i);                                            \
        V y = m < W ? v_load_part(ys + i, m, 1) : v_load(ys + i);                                            \
        V z = (expression);                                                                                  \
        (void)y;                                                                                             \
        if (m < W)                                                                                           \
            v_store_part(out + i, z, m);                                                                     \
        else                                                                                                 \
            v_store(out + i, z);                                                                             \
    }

#define FUNCTION(name, expression)                                                                           \
    void MG_NAME(name)(const T *xs, const T *ys, T *out, ptrdiff_t n)                                        \
    {                                                                                                        \
        EACH(n, expression)                                                                                  \
    }

FUNCTION(exp, v_exp(x))
FUNCTION(expm1, v_expm1(x))
FUNCTION(log, v_log(x))
FUNCTION(log1p, v_log1p(x))
FUNCTION(tanh, v_tanh(x))
FUNCTION(sigmoid, v_sigmoid(x))
FUNCTION(softplus, v_softplus(x))
FUNCTION(sin, v_sin(x))
FUNCTION(cos, v_cos(x))
FUNCTION(erf, v_erf(x))
FUNCTION(pow, v_pow(x, y))
FUNCTION(sqrt, v_sqrt(x))
FUNCTION(rsqrt, v_rsqrt(x))
FUNCTION(abs, v_abs(x))
FUNCTION(sign, v_sign(x))
FUNCTION(floor, v_floor(x))
FUNCTION(maximum, v_max(x, y))
FUNCTION(minimum, v_min(x, y))
FUNCTION(fma, v_fma(x, y, x))
FUNCTION(cube, v_powi(x, 3))
FUNCTION(inverse_square, v_powi(x, -2))
FUNCTION(lt, v_select(v_lt(x, y), K(1), K(0)))
FUNCTION(le, v_select(v_le(x, y), K(1), K(0)))
FUNCTION(gt, v_select(v_gt(x, y), K(1), K(0)))
FUNCTION(ge, v_select(v_ge(x, y), K(1), K(0)))
FUNCTION(eq, v_select(v_eq(x, y), K(1), K(0)))
FUNCTION(ne, v_select(v_ne(x, y), K(1), K(0)))
FUNCTION(between, v_select(v_and(v_not(v_lt(x, y)), v_or(v_lt(x, K(5)), v_eq(x, y))), x, K(-1)))

#undef FUNCTION
#undef EACH

int MG_NAME(lanes)(void)
{
    return W;
}

T MG_NAME(hsum)(const T *xs)
{
    return v_hsum(v_load(xs));
}

void MG_NAME(transpose)(const T *xs, T *out)
{
    V square[W];
    for (int i = 0; i < W; i++)
        square[i] = v_load(xs + i * W);
    v_transpose(square);
    for (int i = 0; i < W; i++)
        v_store(out + i * W, square[i]);
}

void MG_NAME(load_transposed)(const T *xs, T *out)
{
    V square[W];
    v_load_transposed(square, xs, W);
    for (int i = 0; i < W; i++)
        v_store(out + i * W, square[i]);
}

void MG_NAME(gemm)(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a, ptrdiff_t lda,
                   const T *b, ptrdiff_t ldb, T *c, ptrdiff_t ldc, int accumulate)
{
    MG_NAME(mg_gemm)(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
}
