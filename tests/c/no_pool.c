/* In place of pool.c: no memory for workspaces, and one thread. */
#include "pool.h"

void *mg_workspace_take(size_t bytes)
{
    (void)bytes;
    return NULL;
}

void mg_workspace_give(void *workspace)
{
    (void)workspace;
}

int mg_threads(void)
{
    return 1;
}

void mg_set_threads(int threads)
{
    (void)threads;
}

void mg_parallel(void (*task)(void *arg, int k), void *arg, int tasks)
{
    for (int k = 0; k < tasks; k++)
        task(arg, k);
}
