/* The loop around an element-wise expression: out[i] = e(in_0[i], …), or out[i] += e(…) when `accumulate` is set.
 *
 * p: pointers to the inputs, then the output. s: their strides in elements. An output stride of 0 sums all n results into the
 * one output (the transpose of broadcasting); `accumulate` is implied there.
 *
 * A stride of 0 is served from a splatted vector, so a scalar or a broadcast column costs no more than an array. Other strides,
 * and the last n % W elements, go through a staging block and the same vector expression: results never depend on the layout.
 * `in` and `out` may be the same array, element on element.
 */
#define MG_LOOP(NIN, name, ...)                                                                                        \
    static void MG_NAME(name)(char **p, const ptrdiff_t *s, ptrdiff_t n, int accumulate)                               \
    {                                                                                                                  \
        const T *q[NIN];                                                                                               \
        ptrdiff_t step[NIN];                                                                                           \
        T splat[NIN][W];                                                                                               \
        T *out = (T *)p[NIN];                                                                                          \
        const ptrdiff_t to = s[NIN];                                                                                   \
        int direct = to == 1 || to == 0;                                                                               \
        ptrdiff_t i = 0;                                                                                               \
        V total = K(0);                                                                                                \
        for (int j = 0; j < NIN; j++) {                                                                                \
            q[j] = (const T *)p[j];                                                                                    \
            step[j] = W;                                                                                               \
            if (s[j] == 0) {                                                                                           \
                v_store(splat[j], K(q[j][0]));                                                                         \
                q[j] = splat[j];                                                                                       \
                step[j] = 0;                                                                                           \
            } else if (s[j] != 1)                                                                                      \
                direct = 0;                                                                                            \
        }                                                                                                              \
        if (direct)                                                                                                    \
            for (; i + W <= n; i += W) {                                                                               \
                V v[NIN];                                                                                              \
                for (int j = 0; j < NIN; j++) {                                                                        \
                    v[j] = v_load(q[j]);                                                                               \
                    q[j] += step[j];                                                                                   \
                }                                                                                                      \
                V r = MG_NAME(e_##name)(__VA_ARGS__);                                                                  \
                if (to == 0)                                                                                           \
                    total += r;                                                                                        \
                else                                                                                                   \
                    v_store(out + i, accumulate ? v_load(out + i) + r : r);                                            \
            }                                                                                                          \
        for (; i < n; i += W) {                                                                                        \
            const int m = n - i < W ? (int)(n - i) : W;                                                                \
            V v[NIN];                                                                                                  \
            for (int j = 0; j < NIN; j++) {                                                                            \
                T block[W];                                                                                            \
                const T *from = (const T *)p[j] + i * s[j];                                                            \
                for (int l = 0; l < W; l++)                                                                            \
                    block[l] = from[l < m ? l * s[j] : 0];                                                             \
                v[j] = v_load(block);                                                                                  \
            }                                                                                                          \
            T result[W];                                                                                               \
            v_store(result, MG_NAME(e_##name)(__VA_ARGS__));                                                           \
            for (int l = 0; l < m; l++) {                                                                              \
                T *at = out + (i + l) * to;                                                                            \
                *at = accumulate || to == 0 ? *at + result[l] : result[l];                                             \
            }                                                                                                          \
        }                                                                                                              \
        if (to == 0)                                                                                                   \
            *out += v_hsum(total);                                                                                     \
    }

MG_INLINE V MG_NAME(e_copy)(V x) { return x; }
MG_LOOP(1, copy, v[0])

/* An optimiser's step: one pass over several arrays of n elements, of which those of the mask are written back. The last elements
 * are those of a vector filled up with ones, so they go through the same expression. */
#define MG_UPDATE(name, N, NUMBERS, MASK, ...)                                                                         \
    static void MG_NAME(update_##name)(char **arrays, const double *numbers, ptrdiff_t n)                              \
    {                                                                                                                  \
        V number[NUMBERS], v[N];                                                                                       \
        for (int j = 0; j < NUMBERS; j++)                                                                              \
            number[j] = K((T)numbers[j]);                                                                              \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + W <= n; i += W) {                                                                                   \
            MG_UNROLL                                                                                                  \
            for (int j = 0; j < N; j++)                                                                                \
                v[j] = v_load((const T *)arrays[j] + i);                                                               \
            MG_NAME(u_##name)(__VA_ARGS__);                                                                            \
            MG_UNROLL                                                                                                  \
            for (int j = 0; j < N; j++)                                                                                \
                if ((MASK) >> j & 1)                                                                                   \
                    v_store((T *)arrays[j] + i, v[j]);                                                                 \
        }                                                                                                              \
        if (i < n) {                                                                                                   \
            for (int j = 0; j < N; j++)                                                                                \
                v[j] = v_load_part((const T *)arrays[j] + i, n - i, 1);                                                \
            MG_NAME(u_##name)(__VA_ARGS__);                                                                            \
            for (int j = 0; j < N; j++)                                                                                \
                if ((MASK) >> j & 1)                                                                                   \
                    v_store_part((T *)arrays[j] + i, v[j], n - i);                                                     \
        }                                                                                                              \
    }

/* The sum of squares in double precision: those of large float32 numbers do not fit float32. */
static double MG_NAME(sum_squares)(const char *from, ptrdiff_t n)
{
    const T *x = (const T *)from;
    double parts[16] = {0}, total = 0;
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++)
            parts[l] += (double)x[i + l] * (double)x[i + l];
    for (; i < n; i++)
        total += (double)x[i] * (double)x[i];
    for (int l = 0; l < 16; l++)
        total += parts[l];
    return total;
}
