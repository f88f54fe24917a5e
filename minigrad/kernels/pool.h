/* What kernels share in a process: memory for their workspaces, and one pool of threads. */
#ifndef MG_POOL_H
#define MG_POOL_H

#include <stddef.h>

/* Memory for `bytes` bytes, aligned to 64, with anything in it; NULL if there is none. What is given back is kept for
 * reuse up to a bound: fresh pages cost more than most kernels that ask for them. Any thread may call both. */
void *mg_workspace_take(size_t bytes);
void mg_workspace_give(void *workspace); /* NULL is fine */

/* How many threads a kernel may use: what was set, else the first number in OMP_NUM_THREADS, else the CPUs that this
 * process may run on. */
enum { MG_MOST_THREADS = 1024 };
int mg_threads(void);
void mg_set_threads(int threads); /* 1 to MG_MOST_THREADS; from the next mg_parallel on */

/* Run task(arg, 0) ... task(arg, tasks - 1), each once, and return when all are done.
 *
 * They run on up to mg_threads() threads, the caller among them; whoever is free takes the next, so no thread waits for one
 * that the system has put aside, and what a task computes may depend on k alone. Tasks may not wait for each other: called from
 * within a task, or while another caller has the pool, all run in order on the calling thread. Threads start with the
 * first call that needs them; a forked child starts its own. */
void mg_parallel(void (*task)(void *arg, int k), void *arg, int tasks);

#endif
