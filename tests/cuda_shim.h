/* CUDA on the CPU, for tests: enough of the language to compile a kernel with g++ and to run it, one thread at a time.
 *
 * Threads of a block are fibers on one processor: each runs until it meets a barrier, then the next one does. Nothing is
 * concurrent, so a run is the same every time; a kernel that waits for a thread that never comes is reported, not hung.
 *
 *     grid ──► blocks, in turn (all of them alive at once in a cooperative launch) ──► threads, in turn, up to the next barrier
 *
 * What is here: thread and block indices, __syncthreads, __syncwarp, shuffles of full warps, shared memory (of a fixed
 * size; `extern __shared__`, which has to stand inside of the kernel, becomes a pointer to mg_dynamic, and is what a
 * cooperative kernel has to use), atomicAdd, and barriers of the whole grid.
 */
#ifndef MG_CUDA_SHIM_H
#define MG_CUDA_SHIM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <limits.h>

#include <algorithm>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline double cospi(double x) { return cos(M_PI * x); }
static inline float __ldg(const float *p) { return *p; }
static inline double __ldg(const double *p) { return *p; }
using std::max;
using std::min;

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum { MG_STACK = 1 << 16, MG_WARP = 32, MG_SHARED_BYTES = 1 << 18 };
static const int warpSize = MG_WARP;

enum mg_state { MG_READY, MG_AT_BLOCK, MG_AT_WARP, MG_AT_GRID, MG_DONE };

struct mg_fiber {
    ucontext_t context;
    std::vector<char> stack;
    dim3 thread, block;
    mg_state state;
    long waits, warp_waits; /* barriers of the block and of the warp met so far */
    mg_fiber() : stack(MG_STACK) {}
};

static mg_fiber *mg_now;
static ucontext_t mg_scheduler;
static std::function<void()> mg_body;
static dim3 mg_grid, mg_block;
static double mg_exchange[1024][2]; /* what threads of a block show each other in shuffles, in turn */

#define threadIdx (mg_now->thread)
#define blockIdx (mg_now->block)
#define blockDim mg_block
#define gridDim mg_grid

alignas(64) static char mg_dynamic[MG_SHARED_BYTES]; /* dynamic shared memory of the block that runs */

static inline void mg_wait(mg_state where)
{
    mg_now->state = where;
    swapcontext(&mg_now->context, &mg_scheduler);
}
static inline unsigned mg_rank(void)
{
    return mg_now->thread.x + mg_block.x * (mg_now->thread.y + mg_block.y * mg_now->thread.z);
}

static inline void __syncthreads(void)
{
    mg_now->waits++;
    mg_wait(MG_AT_BLOCK);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    (void)mask;
    mg_now->warp_waits++;
    mg_wait(MG_AT_WARP);
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

template <typename T> static T mg_shuffle(T value, unsigned from, int width)
{
    const unsigned mine = mg_rank(), base = mine / width * width;
    memcpy(mg_exchange[mine], &value, sizeof value);
    __syncwarp();
    T other;
    memcpy(&other, mg_exchange[from < (unsigned)width ? base + from : mine], sizeof other);
    __syncwarp();
    return other;
}
template <typename T> static inline T __shfl_sync(unsigned, T v, int lane, int width = MG_WARP)
{
    return mg_shuffle(v, (unsigned)lane % width, width);
}
template <typename T> static inline T __shfl_xor_sync(unsigned, T v, int mask, int width = MG_WARP)
{
    return mg_shuffle(v, (mg_rank() % width) ^ (unsigned)mask, width);
}
template <typename T> static inline T __shfl_down_sync(unsigned, T v, unsigned by, int width = MG_WARP)
{
    return mg_shuffle(v, mg_rank() % width + by, width);
}
template <typename T> static inline T __shfl_up_sync(unsigned, T v, unsigned by, int width = MG_WARP)
{
    const unsigned lane = mg_rank() % width;
    return mg_shuffle(v, lane >= by ? lane - by : (unsigned)width, width);
}

template <typename T> static inline T atomicAdd(T *at, T more)
{
    T before = *at;
    *at = before + more;
    return before;
}

namespace cooperative_groups
{
struct grid_group {
    void sync() const
    {
        mg_wait(MG_AT_GRID);
    }
    unsigned long long size() const { return (unsigned long long)mg_grid.x * mg_grid.y * mg_grid.z * mg_block.x * mg_block.y * mg_block.z; }
};
inline grid_group this_grid() { return grid_group(); }
} // namespace cooperative_groups

static void mg_entry(void)
{
    mg_body();
    mg_wait(MG_DONE);
}

static void mg_start(mg_fiber *f, dim3 block, unsigned rank)
{
    f->thread = dim3(rank % mg_block.x, rank / mg_block.x % mg_block.y, rank / (mg_block.x * mg_block.y));
    f->block = block;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack.data();
    f->context.uc_stack.ss_size = f->stack.size();
    f->context.uc_link = NULL;
    makecontext(&f->context, mg_entry, 0);
}

/* Run the threads of a block until all of them wait for the grid or are done; false if some wait for one that is gone. */
static bool mg_run_block(std::vector<mg_fiber> &fibers, size_t first, size_t count)
{
    std::vector<long> warp((count + MG_WARP - 1) / MG_WARP);
    for (size_t k = first; k < first + count; k++)
        if (fibers[k].state == MG_AT_GRID)
            fibers[k].state = MG_READY;
    for (;;) {
        long block = LONG_MAX;
        bool moved = false, waiting = false;
        warp.assign(warp.size(), LONG_MAX);
        for (size_t k = 0; k < count; k++) {
            const mg_fiber &f = fibers[first + k];
            block = std::min(block, f.waits);
            if (f.state != MG_DONE)
                warp[k / MG_WARP] = std::min(warp[k / MG_WARP], f.warp_waits);
        }
        for (size_t k = 0; k < count; k++) {
            mg_fiber &f = fibers[first + k];
            if (f.state == MG_READY || (f.state == MG_AT_BLOCK && f.waits <= block)
                || (f.state == MG_AT_WARP && f.warp_waits <= warp[k / MG_WARP])) {
                moved = true;
                f.state = MG_READY;
                mg_now = &f;
                swapcontext(&mg_scheduler, &f.context);
            } else
                waiting |= f.state == MG_AT_BLOCK || f.state == MG_AT_WARP;
        }
        if (!moved)
            return !waiting;
    }
}

/* Run a kernel; 0, or 1 if its threads disagree about barriers. */
static int mg_launch(dim3 grid, dim3 block, int cooperative, std::function<void()> body)
{
    const size_t threads = (size_t)block.x * block.y * block.z, blocks = (size_t)grid.x * grid.y * grid.z;
    mg_grid = grid;
    mg_block = block;
    mg_body = body;
    static std::vector<mg_fiber> fibers; /* their stacks serve every launch */
    if (fibers.size() < (cooperative ? threads * blocks : threads))
        fibers.resize(cooperative ? threads * blocks : threads);
    std::vector<std::vector<char>> memory(cooperative ? blocks : 0, std::vector<char>(MG_SHARED_BYTES));
    for (size_t b = 0; b < blocks; b++) {
        const dim3 place(b % grid.x, b / grid.x % grid.y, b / ((size_t)grid.x * grid.y));
        for (size_t k = 0; k < threads; k++) {
            mg_fiber *f = &fibers[cooperative ? b * threads + k : k];
            f->state = MG_READY;
            f->waits = f->warp_waits = 0;
            mg_start(f, place, (unsigned)k);
        }
        if (!cooperative && !mg_run_block(fibers, 0, threads))
            return 1;
    }
    for (bool left = cooperative; left;) {
        left = false;
        for (size_t b = 0; b < blocks; b++) {
            memcpy(mg_dynamic, memory[b].data(), MG_SHARED_BYTES);
            if (!mg_run_block(fibers, b * threads, threads))
                return 1;
            memcpy(memory[b].data(), mg_dynamic, MG_SHARED_BYTES);
            for (size_t k = 0; k < threads; k++)
                left |= fibers[b * threads + k].state != MG_DONE;
        }
    }
    return 0;
}

#endif
