/* Both precisions of one instruction set, and its table of kernels. Included by cpu.c with MG_ISA and MG_BYTES set. */
#define MG_BITS 32
#include "vec.h"
#include "gemm.h"
#include "loss.h"
#include "peak.h"
#include "loops.h"
#include "generated/elementwise.h"
#include "generated/updates.h"
#undef MG_BITS

#define MG_BITS 64
#include "vec.h"
#include "gemm.h"
#include "loss.h"
#include "peak.h"
#include "loops.h"
#include "generated/elementwise.h"
#include "generated/updates.h"
#undef MG_BITS

static const mg_elementwise MG_CAT2(mg_elementwise_, MG_ISA)[] = {
#include "generated/elementwise_table.h"
    {NULL, 0, 0, {NULL, NULL}, {{{NULL, NULL}, 0, 0}}},
};

static const mg_update MG_CAT2(mg_updates_, MG_ISA)[] = {
#include "generated/updates_table.h"
    {NULL, 0, 0, {NULL, NULL}},
};

size_t MG_AT(mg_recurrent_reserve, 32)(const mg_layer *), MG_AT(mg_recurrent_reserve, 64)(const mg_layer *);
int MG_AT(mg_recurrent_forward, 32)(const mg_layer *), MG_AT(mg_recurrent_forward, 64)(const mg_layer *);
int MG_AT(mg_recurrent_backward, 32)(const mg_layer *), MG_AT(mg_recurrent_backward, 64)(const mg_layer *);

const mg_kernels MG_CAT2(mg_kernels_, MG_ISA) = {
    MG_QUOTE(MG_ISA), MG_CAT2(mg_elementwise_, MG_ISA), MG_BOTH(copy), MG_AT(mg_gemm, 32), MG_AT(mg_gemm, 64),
    MG_CAT2(mg_updates_, MG_ISA), MG_BOTH(sum_squares),
    MG_BOTH(mg_recurrent_reserve), MG_BOTH(mg_recurrent_forward), MG_BOTH(mg_recurrent_backward),
    MG_BOTH(mg_cross_entropy), MG_BOTH(mg_cross_entropy_gradient), MG_BOTH(mg_fma_chains),
};
