/* Both scalars of one instruction set. */
#define MG_BITS 32
#include "driver_functions.h"
#undef MG_BITS
#define MG_BITS 64
#include "driver_functions.h"
#undef MG_BITS
