/* Compiles vec.h, gemm.h and the generated element-wise loops for every instruction set, and picks one at run time. */
#include "cpu.h"
#include "isa.h"
#include <math.h>
#include <stdint.h>

#define MG_QUOTE_(x) #x
#define MG_QUOTE(x) MG_QUOTE_(x)
#define MG_AT__(f, bits, isa) f##_f##bits##_##isa
#define MG_AT_(f, bits, isa) MG_AT__(f, bits, isa)
#define MG_AT(f, bits) MG_AT_(f, bits, MG_ISA)
#define MG_BOTH(f) {MG_AT(f, 32), MG_AT(f, 64)}

#define MG_SOURCE "lanes.h"
#include "each_isa.h"

const mg_kernels *mg_cpu_kernels(void)
{
    switch (mg_isa_detect()) {
    case MG_ISA_BASE:
        return &mg_kernels_base;
#if MG_X86
    case MG_ISA_AVX2:
        return &mg_kernels_avx2;
    case MG_ISA_AVX512:
        return &mg_kernels_avx512;
#endif
    default:
        return NULL;
    }
}

void mg_run(mg_loop loop, int itemsize, int n_in, int ndim, const ptrdiff_t *dims, char *const *p, const ptrdiff_t *strides,
            int accumulate)
{
    /* Drop axes of length 1 and merge neighbours that every operand walks in one stride. */
    ptrdiff_t size[MG_MAX_DIMS], step[MG_MAX_ARGS + 1][MG_MAX_DIMS], inner[MG_MAX_ARGS + 1], at[MG_MAX_DIMS];
    char *q[MG_MAX_ARGS + 1];
    const int n_all = n_in + 1;
    int kept = 0;
    for (int d = 0; d < ndim; d++) {
        if (dims[d] == 0)
            return;
        if (dims[d] == 1)
            continue;
        int merge = kept > 0;
        for (int j = 0; j < n_all && merge; j++)
            merge = step[j][kept - 1] == strides[j * ndim + d] * dims[d];
        if (merge)
            size[kept - 1] *= dims[d];
        else
            size[kept++] = dims[d];
        for (int j = 0; j < n_all; j++)
            step[j][kept - 1] = strides[j * ndim + d];
    }
    for (int j = 0; j < n_all; j++) {
        q[j] = p[j];
        inner[j] = kept ? step[j][kept - 1] : 1;
    }
    if (kept < 2) {
        loop(q, inner, kept ? size[0] : 1, accumulate);
        return;
    }
    for (int d = 0; d < kept; d++)
        at[d] = 0;
    for (;;) {
        loop(q, inner, size[kept - 1], accumulate);
        int d = kept - 2;
        for (; d >= 0; d--) {
            for (int j = 0; j < n_all; j++)
                q[j] += step[j][d] * itemsize;
            if (++at[d] < size[d])
                break;
            for (int j = 0; j < n_all; j++)
                q[j] -= step[j][d] * size[d] * itemsize;
            at[d] = 0;
        }
        if (d < 0)
            return;
    }
}
