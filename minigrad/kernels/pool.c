/* Blocks of memory that were given back, and a pool that runs one job at a time. One word, `claims`, says how many tasks
 * the job has and how many are taken:
 *
 *     caller                                     worker
 *     fill in the job, claims = (tasks, 0)       spin, then sleep, until some task is not taken
 *     take tasks and run them             <-->   take tasks and run them
 *     spin, then sleep, until                    finished += 1 after each
 *         finished == tasks
 *
 * A task is taken by a compare-and-swap of the word, so whoever took one knows that its job is the present one and stays so
 * until the task is finished: a worker that is late reads nothing that the next job writes. Whoever goes to sleep first
 * says so and then looks once more; whoever wakes him first changes what he looks at and then asks whether anybody
 * sleeps: one of the two sees the other. */
#if defined(__linux__)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "pool.h"
#include "isa.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#endif

#if defined(__has_feature)
#define MG_HAS_FEATURE(name) __has_feature(name)
#else
#define MG_HAS_FEATURE(name) 0
#endif
/* AddressSanitizer is to see the end of every block, and its use after it was given back. */
#if defined(__SANITIZE_ADDRESS__) || MG_HAS_FEATURE(address_sanitizer)
#define MG_KEEP_BLOCKS 0
#else
#define MG_KEEP_BLOCKS 1
#endif

/* ---- Workspaces */

enum { HEADER = 64, MOST_BLOCKS = 32 };
#define MOST_BYTES ((size_t)128 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

typedef struct {
    size_t bytes; /* with this header */
} mg_block;

static struct {
    pthread_mutex_t lock;
    mg_block *blocks[MOST_BLOCKS]; /* the one that has waited longest comes first */
    int number;
    size_t bytes;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void watch_forks(void);

/* A block's size: in steps of at most an eighth, so that blocks fit the next request as well. */
static size_t block_bytes(size_t bytes)
{
    size_t step = MG_KEEP_BLOCKS ? 1024 : 1;
    while (MG_KEEP_BLOCKS && step * 16 <= bytes)
        step *= 2;
    return (bytes + HEADER + step - 1) / step * step;
}

static mg_block *unkeep(int place)
{
    mg_block *block = kept.blocks[place];
    kept.bytes -= block->bytes;
    kept.number--;
    memmove(kept.blocks + place, kept.blocks + place + 1, (size_t)(kept.number - place) * sizeof *kept.blocks);
    return block;
}

void *mg_workspace_take(size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    pthread_once(&once, watch_forks);
    bytes = block_bytes(bytes);
    mg_block *block = NULL;
    pthread_mutex_lock(&kept.lock);
    int best = -1;
    for (int i = 0; i < kept.number; i++) { /* of equal ones the latest, which caches may still hold */
        size_t size = kept.blocks[i]->bytes;
        if (size >= bytes && size / 2 <= bytes && (best < 0 || size <= kept.blocks[best]->bytes))
            best = i;
    }
    if (best >= 0)
        block = unkeep(best);
    pthread_mutex_unlock(&kept.lock);
    if (block == NULL) {
        void *memory;
        if (posix_memalign(&memory, bytes >= HUGE_PAGE ? HUGE_PAGE : HEADER, bytes))
            return NULL;
#if defined(MADV_HUGEPAGE)
        if (bytes >= HUGE_PAGE)
            madvise(memory, bytes, MADV_HUGEPAGE); /* panels jump from page to page; a refusal costs only time */
#endif
        block = memory;
        block->bytes = bytes;
    }
    return (char *)block + HEADER;
}

void mg_workspace_give(void *workspace)
{
    if (workspace == NULL)
        return;
    mg_block *block = (mg_block *)((char *)workspace - HEADER), *dropped[MOST_BLOCKS + 1];
    int drops = 0;
    if (!MG_KEEP_BLOCKS || block->bytes > MOST_BYTES) {
        free(block);
        return;
    }
    pthread_mutex_lock(&kept.lock);
    while (kept.number == MOST_BLOCKS || kept.bytes > MOST_BYTES - block->bytes)
        dropped[drops++] = unkeep(0);
    kept.blocks[kept.number++] = block;
    kept.bytes += block->bytes;
    pthread_mutex_unlock(&kept.lock);
    while (drops > 0)
        free(dropped[--drops]);
}

/* ---- Threads */

enum { SPINS = 2000 }; /* tens of microseconds, about as long as it takes to wake a sleeper */
#define DISMISSED UINT64_MAX

static struct {
    atomic_flag held; /* by the caller whose job it is */
    /* The holder's. Workers read task and arg once they have taken a task. */
    void (*task)(void *arg, int k);
    void *arg;
    pthread_t *workers;
    int threads; /* what the pool was made for; 0 where there is none */
    int started; /* workers that run: fewer than threads - 1 where the system gave no more */
    /* Between the holder and the workers. */
    _Atomic uint64_t claims; /* tasks << 32 | taken; or DISMISSED */
    atomic_int unfinished, workers_asleep, holder_asleep, spins;
    pthread_mutex_t lock;
    pthread_cond_t announced, finished;
} pool = {
    .held = ATOMIC_FLAG_INIT,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .announced = PTHREAD_COND_INITIALIZER,
    .finished = PTHREAD_COND_INITIALIZER,
};

static atomic_int wanted;           /* threads; 0: not yet known */
static _Thread_local int in_a_task; /* whether this thread runs one */

static int usable_cpus(void)
{
#if defined(__linux__)
    for (int room = 1 << 10; room <= 1 << 18; room <<= 2) { /* a set smaller than the kernel's own is refused */
        cpu_set_t *set = CPU_ALLOC(room);
        if (set == NULL)
            break;
        size_t size = CPU_ALLOC_SIZE(room);
        int number = sched_getaffinity(0, size, set) ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (number > 0)
            return number;
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

static int within_bounds(long threads)
{
    return threads < 1 ? 1 : threads > MG_MOST_THREADS ? MG_MOST_THREADS : (int)threads;
}

int mg_threads(void)
{
    int threads = atomic_load_explicit(&wanted, memory_order_relaxed);
    if (threads > 0)
        return threads;
    const char *levels = getenv("OMP_NUM_THREADS"); /* "4,2": four threads, each of which may start two */
    long number = levels == NULL ? 0 : strtol(levels, NULL, 10);
    int unknown = 0;
    threads = within_bounds(number > 0 ? number : usable_cpus());
    return atomic_compare_exchange_strong(&wanted, &unknown, threads) ? threads : unknown;
}

void mg_set_threads(int threads)
{
    atomic_store(&wanted, within_bounds(threads));
}

static inline void breathe(void)
{
#if MG_X86
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int none_left(uint64_t claims)
{
    return (claims >> 32) == (claims & UINT32_MAX) && claims != DISMISSED;
}

/* Take tasks and run them until none is left; whether the last one that was to be finished was finished here. */
static int run_tasks(void)
{
    int last = 0;
    uint64_t claims = atomic_load(&pool.claims);
    while (!none_left(claims) && claims != DISMISSED) {
        if (!atomic_compare_exchange_weak(&pool.claims, &claims, claims + 1))
            continue;
        in_a_task = 1;
        pool.task(pool.arg, (int)(claims & UINT32_MAX));
        in_a_task = 0;
        last = atomic_fetch_sub(&pool.unfinished, 1) == 1;
        claims = atomic_load(&pool.claims);
    }
    return last;
}

static void wait_for_work(void)
{
    for (int i = atomic_load(&pool.spins); i > 0; i--) {
        if (!none_left(atomic_load(&pool.claims)))
            return;
        breathe();
    }
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.workers_asleep, 1);
    while (none_left(atomic_load(&pool.claims)))
        pthread_cond_wait(&pool.announced, &pool.lock);
    atomic_fetch_sub(&pool.workers_asleep, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void announce(uint64_t claims)
{
    atomic_store(&pool.claims, claims);
    if (atomic_load(&pool.workers_asleep)) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.announced);
        pthread_mutex_unlock(&pool.lock);
    }
}

static void *work(void *nothing)
{
    while (atomic_load(&pool.claims) != DISMISSED) {
        if (run_tasks() && atomic_load(&pool.holder_asleep)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.finished);
            pthread_mutex_unlock(&pool.lock);
        }
        wait_for_work();
    }
    return nothing;
}

static void wait_for_workers(void)
{
    for (int i = atomic_load(&pool.spins); i > 0 && atomic_load(&pool.unfinished) > 0; i--)
        breathe();
    if (atomic_load(&pool.unfinished) == 0)
        return;
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.holder_asleep, 1);
    while (atomic_load(&pool.unfinished) > 0)
        pthread_cond_wait(&pool.finished, &pool.lock);
    atomic_store(&pool.holder_asleep, 0);
    pthread_mutex_unlock(&pool.lock);
}

static void dismiss_workers(void)
{
    announce(DISMISSED);
    while (pool.started > 0)
        pthread_join(pool.workers[--pool.started], NULL);
    atomic_store(&pool.claims, 0);
    free(pool.workers);
    pool.workers = NULL;
    pool.threads = 0;
}

static void hire_workers(int threads)
{
    dismiss_workers();
    pool.threads = threads;
    pool.workers = malloc((size_t)(threads - 1) * sizeof *pool.workers);
    atomic_store(&pool.spins, threads <= usable_cpus() ? SPINS : 0); /* who spins on a CPU that others need delays them */
    sigset_t all, before; /* signals are for the threads of the program */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.workers != NULL && pool.started < threads - 1 &&
           pthread_create(&pool.workers[pool.started], NULL, work, NULL) == 0)
        pool.started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void mg_parallel(void (*task)(void *arg, int k), void *arg, int tasks)
{
    const int threads = mg_threads();
    if (tasks < 2 || threads < 2 || in_a_task || atomic_flag_test_and_set(&pool.held)) {
        for (int k = 0; k < tasks; k++)
            task(arg, k);
        return;
    }
    if (pool.threads != threads) {
        pthread_once(&once, watch_forks);
        hire_workers(threads);
    }
    pool.task = task;
    pool.arg = arg;
    atomic_store(&pool.unfinished, tasks);
    announce((uint64_t)tasks << 32);
    run_tasks();
    wait_for_workers();
    atomic_flag_clear(&pool.held);
}

/* ---- Ends: a fork copies the memory but only the thread that calls it. */

static void before_fork(void)
{
    pthread_mutex_lock(&kept.lock);
    pthread_mutex_lock(&pool.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&kept.lock);
}

static void after_fork_in_child(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    kept.lock = pool.lock = lock;
    pool.announced = pool.finished = condition;
    pool.started = pool.threads = 0;
    atomic_store(&pool.claims, 0);
    atomic_store(&pool.workers_asleep, 0);
    atomic_store(&pool.holder_asleep, 0);
    free(pool.workers);
    pool.workers = NULL;
    atomic_flag_clear(&pool.held); /* whoever held it is not here */
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* No worker outlives the code and data it uses. A thread of the program that is in the middle of a job keeps the pool. */
__attribute__((destructor)) static void close_pool(void)
{
    if (!atomic_flag_test_and_set(&pool.held))
        dismiss_workers();
    pthread_mutex_lock(&kept.lock);
    while (kept.number > 0)
        free(unkeep(kept.number - 1));
    pthread_mutex_unlock(&kept.lock);
}
