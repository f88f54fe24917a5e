/* Cross entropy of rows of logits x[rows, classes] and class numbers: the loss and its gradient, one row at a time
 * while it is in the cache. Include after vec.h. The formulas are those of cross_entropy in ops/loss.py:
 *
 *     loss = log(sum_j exp(x[j] - m)) - (x[target] - m)        m = max_j x[j], held finite
 *     dx[j] (+)= g * (exp(x[j] - m) / sum - (j == target))
 */
#ifndef MG_LOSS_H
#define MG_LOSS_H

#include <float.h>

#define mg_row_top MG_NAME(mg_row_top)
#define mg_row_exps MG_NAME(mg_row_exps)
#define MG_LARGEST_32 FLT_MAX
#define MG_LARGEST_64 DBL_MAX

#endif

MG_INLINE T mg_row_top(ptrdiff_t n, const T *x)
{
    V top = K((T)-INFINITY);
    ptrdiff_t j = 0;
    for (; j + W <= n; j += W)
        top = v_max(v_load(x + j), top);
    if (j < n)
        top = v_max(v_load_part(x + j, n - j, (T)-INFINITY), top);
    for (int half = W / 2; half; half /= 2) /* halves against halves, NaN before all */
        for (int i = 0; i < half; i++)
            top[i] = top[i] > top[i + half] || top[i] != top[i] ? top[i] : top[i + half];
    const T most = top[0];
    const T largest = MG_CAT2(MG_LARGEST_, MG_BITS);
    return most < -largest ? -largest : most > largest ? largest : most;
}

/* Sum of exp(x[j] - top); they are left in `out` unless it is NULL. */
MG_INLINE T mg_row_exps(ptrdiff_t n, const T *x, T top, T *out)
{
    V sum = K(0);
    ptrdiff_t j = 0;
    for (; j + W <= n; j += W) {
        V e = v_exp(v_load(x + j) - K(top));
        sum += e;
        if (out != NULL)
            v_store(out + j, e);
    }
    if (j < n) {
        V e = v_exp(v_load_part(x + j, n - j, (T)-INFINITY) - K(top));
        sum += e;
        if (out != NULL)
            v_store_part(out + j, e, n - j);
    }
    return v_hsum(sum);
}

/* losses[i], 0 where the target is `ignored`; every other target is a class. */
static void MG_NAME(mg_cross_entropy)(ptrdiff_t rows, ptrdiff_t classes, const char *logits, const mg_i64 *target,
                                      mg_i64 ignored, char *losses)
{
    const T *x = (const T *)logits;
    for (ptrdiff_t i = 0; i < rows; i++, x += classes) {
        T loss = 0;
        if (target[i] != ignored) {
            const T top = mg_row_top(classes, x);
            loss = MG_LIBM(log)(mg_row_exps(classes, x, top, NULL)) - (x[target[i]] - top);
        }
        ((T *)losses)[i] = loss;
    }
}

/* dx[rows, classes], 0 where the target is ignored; row i has the cotangent scale * g[i * step]. */
static void MG_NAME(mg_cross_entropy_gradient)(ptrdiff_t rows, ptrdiff_t classes, const char *logits,
                                               const mg_i64 *target, mg_i64 ignored, const char *g, ptrdiff_t step,
                                               double scale, char *gradient)
{
    const T *x = (const T *)logits;
    T *dx = (T *)gradient;
    for (ptrdiff_t i = 0; i < rows; i++, x += classes, dx += classes) {
        if (target[i] == ignored) {
            memset(dx, 0, (size_t)classes * sizeof(T));
            continue;
        }
        const T factor = (T)(scale * ((const T *)g)[i * step]);
        const T sum = mg_row_exps(classes, x, mg_row_top(classes, x), dx);
        const V by = K(factor / sum);
        ptrdiff_t j = 0;
        for (; j + W <= classes; j += W)
            v_store(dx + j, v_load(dx + j) * by);
        if (j < classes)
            v_store_part(dx + j, v_load_part(dx + j, classes - j, 0) * by, classes - j);
        dx[target[i]] -= factor;
    }
}
