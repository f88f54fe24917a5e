/* The functions of vec.h and gemm.h as plain symbols, for every instruction set that the compiler targets. */
#define MG_ISA base
#define MG_BYTES 16
#include "driver_isa.h"
#undef MG_ISA
#undef MG_BYTES

#if MG_X86
MG_BEGIN_AVX2
#define MG_ISA avx2
#define MG_BYTES 32
#include "driver_isa.h"
#undef MG_ISA
#undef MG_BYTES
MG_END

MG_BEGIN_AVX512
#define MG_ISA avx512
#define MG_BYTES 64
#include "driver_isa.h"
#undef MG_ISA
#undef MG_BYTES
MG_END
#endif

int isa_detect(void)
{
    return mg_isa_detect();
}
