/* A program for the address sanitizer: every function of the driver on heap blocks without a byte to spare. */
#include "driver.c"

#define FILL(values, count)                                                                                  \
    for (ptrdiff_t i = 0; i < (count); i++)                                                                  \
    (values)[i] = 0.25f * (float)(i % 7)

#define SWEEP(scalar, bits, isa)                                                                             \
    static void sweep_f##bits##_##isa(void)                                                                  \
    {                                                                                                        \
        for (ptrdiff_t n = 0; n <= 40; n++) {                                                                \
            scalar *x = malloc(sizeof(scalar) * (size_t)n), *y = malloc(sizeof(scalar) * (size_t)n);         \
            FILL(x, n);                                                                                      \
            exp_f##bits##_##isa(x, x, y, n);                                                                 \
            log1p_f##bits##_##isa(x, x, y, n);                                                               \
            pow_f##bits##_##isa(x, x, y, n);                                                                 \
            free(x), free(y);                                                                                \
        }                                                                                                    \
        static const ptrdiff_t sizes[] = {0, 1, 2, 9, 33, 67, 131};                                           \
        enum { SIZES = sizeof sizes / sizeof *sizes };                                                       \
        for (int choice = 0; choice < SIZES * SIZES * SIZES * 8; choice++) {                                 \
            ptrdiff_t m = sizes[choice / 8 % SIZES], n = sizes[choice / 8 / SIZES % SIZES];                  \
            ptrdiff_t k = sizes[choice / 8 / SIZES / SIZES];                                                 \
            int ta = choice & 1, tb = choice >> 1 & 1, accumulate = choice >> 2 & 1;                         \
            scalar *a = malloc(sizeof(scalar) * (size_t)(m * k));                                            \
            scalar *b = malloc(sizeof(scalar) * (size_t)(k * n));                                            \
            scalar *c = malloc(sizeof(scalar) * (size_t)(m * n));                                            \
            FILL(a, m * k);                                                                                  \
            FILL(b, k * n);                                                                                  \
            FILL(c, m * n);                                                                                  \
            gemm_f##bits##_##isa(ta, tb, m, n, k, a, ta ? m : k, b, tb ? k : n, c, n, accumulate);           \
            free(a), free(b), free(c);                                                                       \
        }                                                                                                    \
    }

SWEEP(float, 32, base)
SWEEP(double, 64, base)
#if MG_X86
SWEEP(float, 32, avx2)
SWEEP(double, 64, avx2)
SWEEP(float, 32, avx512)
SWEEP(double, 64, avx512)
#endif

int main(void)
{
    int best = mg_isa_detect();
    if (best < MG_ISA_BASE)
        return 2;
    sweep_f32_base();
    sweep_f64_base();
#if MG_X86
    if (best >= MG_ISA_AVX2) {
        sweep_f32_avx2();
        sweep_f64_avx2();
    }
    if (best >= MG_ISA_AVX512) {
        sweep_f32_avx512();
        sweep_f64_avx512();
    }
#endif
    return 0;
}
