/* Compiles the recurrent kernels for every instruction set; cpu.c's tables name them. */
#include "recurrent.h"
#include "cpu.h"
#include "isa.h"
#include "pool.h"
#include <math.h>
#include <stdint.h>

/* What depends on neither the scalar nor the instruction set. */

/* Places pieces of memory one after the other; with `base` NULL it only counts. */
typedef struct {
    char *base;
    size_t at;
} mg_arena;

static void *mg_carve_bytes(mg_arena *arena, size_t bytes)
{
    char *place = arena->base ? arena->base + arena->at : NULL;
    arena->at += (bytes + 63) / 64 * 64;
    return place;
}

/* What begins a reserve that has anything in it. */
typedef struct {
    int slices; /* of the forward run: its rows are laid out slice by slice */
} mg_reserve_head;

enum { MG_HEAD_BYTES = 64 };
/* Chunks: as many rows as have gates that stay in cache beside what else a step touches. Where those are too few: FEW for the
 * input's products alone, whose panels are packed already; MOST where the weights' gradients are added up as well, each chunk
 * loading and storing all of them. */
enum { MG_CHUNK_BYTES = 1 << 18, MG_CHUNK_FEW = 48, MG_CHUNK_ROWS = 96, MG_CHUNK_MOST = 512 };
/* Rows that must meet a matrix before packing it pays. */
enum { MG_PACK_ROWS = 8 };
/* Tasks: multiplications that are worth a thread, and rows that still fill a block; more multiplications where only a product
 * is shared, whose results one thread then fetches from the others' caches. */
enum { MG_TASK_WORK = 1000000, MG_SLICE_ROWS = 4, MG_INPUT_WORK = 4000000 };

static int mg_has_cells(const mg_layer *l)
{
    return l->cell == MG_CELL_LSTM;
}

/* A simple network's gates are its outputs, which the caller has. */
static int mg_has_gates(const mg_layer *l)
{
    return l->cell >= MG_CELL_LSTM;
}

/* Backward computes steps again, a segment at a time. */
static int mg_computes_again(const mg_layer *l)
{
    return l->recompute > 0 && mg_has_gates(l);
}

static ptrdiff_t mg_segment(const mg_layer *l)
{
    return mg_computes_again(l) && l->recompute < l->steps ? l->recompute : l->steps;
}

static ptrdiff_t mg_segments(const mg_layer *l)
{
    return l->steps ? (l->steps + mg_segment(l) - 1) / mg_segment(l) : 0;
}

/* Share `n` things among `parts`: how many the first `part` parts have together. The shares differ by at most one. */
static ptrdiff_t mg_share(ptrdiff_t n, ptrdiff_t parts, ptrdiff_t part)
{
    return n / parts * part + (part < n % parts ? part : n % parts);
}

#define MG_SOURCE "recurrent_isa.h"
#include "each_isa.h"
