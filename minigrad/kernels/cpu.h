/* The compiled lane's kernels, as the Cython side sees them: plain C types, one table for the instruction set of this CPU. */
#ifndef MG_CPU_H
#define MG_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "recurrent.h"

#define MG_MAX_ARGS 8      /* operands and parameters of an element-wise op, and one more for g or y */
#define MG_MAX_DIMS 64
#define MG_RESULT (1u << 15)

typedef void (*mg_loop)(char **p, const ptrdiff_t *s, ptrdiff_t n, int accumulate);

/* Derivative rule of one operand: inputs are g, then the arguments of the mask in order (operands, parameters, then the result). */
typedef struct {
    mg_loop loop[2]; /* float, double; NULL where the op has no rule */
    unsigned mask;
    int identity; /* the partial is 1: the contribution is g itself */
} mg_rule;

typedef struct {
    const char *name;
    int n_operands, n_params;
    mg_loop forward[2];
    mg_rule rules[4];
} mg_elementwise;

/* An optimiser's step, see ops/update.py. */
typedef struct {
    const char *name;
    int n_arrays, n_params;
    void (*run[2])(char **arrays, const double *numbers, ptrdiff_t n);
} mg_update;

typedef struct {
    const char *isa;
    const mg_elementwise *elementwise; /* ends with a NULL name */
    mg_loop copy[2];
    /* row-major C[m,n] (+)= op(A)[m,k] op(B)[k,n] */
    void (*gemm_f32)(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda, const float *b,
                     ptrdiff_t ldb, float *c, ptrdiff_t ldc, int accumulate);
    void (*gemm_f64)(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const double *a, ptrdiff_t lda, const double *b,
                     ptrdiff_t ldb, double *c, ptrdiff_t ldc, int accumulate);
    const mg_update *updates; /* ends with a NULL name */
    double (*sum_squares[2])(const char *x, ptrdiff_t n);
    mg_recurrent_size recurrent_reserve[2];
    mg_recurrent_run recurrent_forward[2], recurrent_backward[2];
    /* see loss.h */
    void (*cross_entropy[2])(ptrdiff_t rows, ptrdiff_t classes, const char *x, const int64_t *target, int64_t ignored,
                             char *losses);
    void (*cross_entropy_gradient[2])(ptrdiff_t rows, ptrdiff_t classes, const char *x, const int64_t *target,
                                      int64_t ignored, const char *g, ptrdiff_t step, double scale, char *dx);
    double (*fma_chains[2])(ptrdiff_t rounds, double factor, double term, double *flops); /* see peak.h */
} mg_kernels;

/* One for each instruction set. */
extern const mg_kernels mg_kernels_base, mg_kernels_avx2, mg_kernels_avx512;

/* The kernels of the best instruction set; NULL if MINIGRAD_ISA names one that this CPU does not have. */
const mg_kernels *mg_cpu_kernels(void);

/* Run a loop over n-dimensional operands: `n_in` inputs, then the output; strides[j * ndim + d] in elements. */
void mg_run(mg_loop loop, int itemsize, int n_in, int ndim, const ptrdiff_t *dims, char *const *p, const ptrdiff_t *strides,
            int accumulate);

#endif
