/* Compiles the recurrent kernels for every instruction set; cpu.c's tables name them. */
#include "recurrent.h"
#include "cpu.h"
#include "isa.h"
#include "pool.h"
#include <math.h>
#include <stdint.h>

#if MG_X86
MG_BEGIN_AVX512
#define MG_ISA avx512
#define MG_BYTES 64
#include "recurrent_isa.h"
#undef MG_ISA
#undef MG_BYTES
MG_END

MG_BEGIN_AVX2
#define MG_ISA avx2
#define MG_BYTES 32
#include "recurrent_isa.h"
#undef MG_ISA
#undef MG_BYTES
MG_END
#endif

#define MG_ISA base
#define MG_BYTES 16
#include "recurrent_isa.h"
