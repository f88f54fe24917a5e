/* The functions of vec.h and gemm.h as plain symbols, for every instruction set that the compiler targets. */
#include "isa.h"
#define MG_SOURCE "driver_isa.h"
#include "each_isa.h"

int isa_detect(void)
{
    return mg_isa_detect();
}
