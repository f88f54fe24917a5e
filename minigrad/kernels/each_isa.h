/* Includes MG_SOURCE once for each instruction set of isa.h, with MG_ISA its name and MG_BYTES the size of its vectors:
 *
 *     #define MG_SOURCE "lanes.h"
 *     #include "each_isa.h"
 *
 * Every system header has to come before: one that is first seen in here would define its inline functions for one
 * instruction set only.
 */
#define MG_ISA base
#define MG_BYTES 16
#include MG_SOURCE
#undef MG_ISA
#undef MG_BYTES

#if MG_X86
MG_BEGIN_AVX2
#define MG_ISA avx2
#define MG_BYTES 32
#include MG_SOURCE
#undef MG_ISA
#undef MG_BYTES
MG_END

MG_BEGIN_AVX512
#define MG_ISA avx512
#define MG_BYTES 64
#include MG_SOURCE
#undef MG_ISA
#undef MG_BYTES
MG_END
#endif

#undef MG_SOURCE
