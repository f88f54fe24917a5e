/* Exercises the pool from many sides at once; exit status 0 if every number is right. Made to run under sanitizers. */
#include "pool.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(claim)                                                                                         \
    do {                                                                                                     \
        if (!(claim)) {                                                                                      \
            fprintf(stderr, "line %d: %s\n", __LINE__, #claim);                                              \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

enum { MOST = 61 };

typedef struct {
    int seen[MOST]; /* how often each task ran: plain memory, so that a race is seen */
    int depth;
    pthread_t by[MOST];
} job;

static void nested_task(void *arg, int k)
{
    ((job *)arg)->seen[k]++;
}

static void task(void *arg, int k)
{
    job *j = arg;
    j->seen[k]++;
    j->by[k] = pthread_self();
    if (j->depth) {
        job inner;
        memset(&inner, 0, sizeof inner);
        mg_parallel(nested_task, &inner, 5);
        for (int i = 0; i < 5; i++)
            CHECK(inner.seen[i] == 1);
    }
}

static void run(int tasks, int depth)
{
    job j;
    memset(&j, 0, sizeof j);
    j.depth = depth;
    mg_parallel(task, &j, tasks);
    for (int k = 0; k < MOST; k++)
        CHECK(j.seen[k] == (k < tasks));
}

/* No more threads than allowed, the caller's among them: it is one of `threads` that are free. */
static void assignment(int threads)
{
    job j;
    memset(&j, 0, sizeof j);
    mg_set_threads(threads);
    mg_parallel(task, &j, MOST);
    int others = 0;
    for (int k = 0; k < MOST; k++) {
        int seen = pthread_equal(j.by[k], pthread_self());
        for (int i = 0; i < k && !seen; i++)
            seen = pthread_equal(j.by[k], j.by[i]) != 0;
        others += !seen;
    }
    CHECK(others < threads);
}

/* Tasks that take long do run side by side: each waits until all have begun, or for long enough to be sure. */
static atomic_int begun;

static void meet(void *arg, int k)
{
    (void)k;
    atomic_fetch_add(&begun, 1);
    for (int i = 0; i < 20000 && atomic_load(&begun) < *(int *)arg; i++)
        usleep(1000);
}

static void together(int threads)
{
    mg_set_threads(threads);
    atomic_store(&begun, 0);
    mg_parallel(meet, &threads, threads);
    CHECK(atomic_load(&begun) == threads);
}

static void memory(unsigned seed)
{
    unsigned char *held[7] = {0};
    size_t sizes[7] = {0};
    for (int i = 0; i < 300; i++) {
        int at = (int)(seed % 7);
        seed = seed * 1103515245u + 12345u;
        for (size_t b = 0; b < sizes[at]; b += 97)
            CHECK(held[at][b] == (unsigned char)(at + b)); /* nobody else wrote there */
        mg_workspace_give(held[at]);
        sizes[at] = seed % 20 == 0 ? (size_t)3 << 20 : (seed >> 8) % 20000;
        held[at] = mg_workspace_take(sizes[at]);
        CHECK(held[at] != NULL && (uintptr_t)held[at] % 64 == 0);
        for (size_t b = 0; b < sizes[at]; b += 97)
            held[at][b] = (unsigned char)(at + b);
        seed = seed * 1103515245u + 12345u;
    }
    for (int i = 0; i < 7; i++)
        mg_workspace_give(held[i]);
}

static void *caller(void *number)
{
    for (int i = 0; i < 200; i++)
        run(1 + (i + (int)(intptr_t)number) % MOST, i % 3 == 0);
    memory((unsigned)(intptr_t)number);
    return NULL;
}

static void many_callers(void)
{
    pthread_t callers[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&callers[i], NULL, caller, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < 20; i++)
        mg_set_threads(1 + i % 5);
    for (int i = 0; i < 4; i++)
        pthread_join(callers[i], NULL);
}

static void forks(int levels)
{
    if (levels == 0)
        return;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60); /* a child that hangs is a failure, not a wait */
        for (int i = 0; i < 20; i++)
            run(MOST, 1);
        memory(11);
        forks(levels - 1);
        exit(0);
    }
    run(MOST, 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    alarm(100);
    if (argc > 1 && strcmp(argv[1], "threads") == 0) {
        printf("%d\n", mg_threads());
        return 0;
    }
    memory(3);
    CHECK(mg_workspace_take(SIZE_MAX) == NULL);
    CHECK(mg_workspace_take(SIZE_MAX - 100) == NULL);
    mg_workspace_give(NULL);
    for (int threads = 1; threads <= 4; threads++) {
        assignment(threads);
        CHECK(mg_threads() == threads);
        together(threads);
        for (int tasks = 0; tasks < MOST; tasks++)
            run(tasks, tasks % 2);
        usleep(2000); /* long enough for the workers to fall asleep */
        run(MOST, 1);
    }
    mg_set_threads(3);
    run(MOST, 0);
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        forks(2);
    many_callers();
    mg_set_threads(2);
    run(MOST, 1);
    puts("pool: all right");
    return 0;
}
