/* Both precisions of one instruction set. Included by recurrent.c with MG_ISA and MG_BYTES set. */
#define MG_BITS 32
#include "vec.h"
#include "panels.h"
#include "cells.h"
#include "sequence.h"
#undef MG_BITS

#define MG_BITS 64
#include "vec.h"
#include "panels.h"
#include "cells.h"
#include "sequence.h"
#undef MG_BITS
