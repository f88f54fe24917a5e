/* Instruction sets: markers between which code is compiled for one of them (each_isa.h), and which one this CPU runs.
 *
 * avx512 has vectors of 64 bytes, avx2 of 32, and the baseline, base, of 16: SSE2 on x86-64, NEON on arm64. It needs no
 * markers and exists everywhere.
 */
#ifndef MG_ISA_H
#define MG_ISA_H

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#define MG_X86 1
#include <immintrin.h>
#else
#define MG_X86 0
#endif

/* AVX-512 here means the part that every such server and desktop CPU has. */
#if defined(__clang__)
#define MG_PRAGMA(words) _Pragma(#words)
#define MG_BEGIN_AVX512                                                                                      \
    MG_PRAGMA(clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))),   \
                                   apply_to = function))
#define MG_BEGIN_AVX2                                                                                        \
    MG_PRAGMA(clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function))
#define MG_END MG_PRAGMA(clang attribute pop)
#else
#define MG_BEGIN_AVX512                                                                                      \
    _Pragma("GCC push_options") _Pragma("GCC target(\"avx512f,avx512dq,avx512vl,avx512bw,avx2,fma\")")
#define MG_BEGIN_AVX2 _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma\")")
#define MG_END _Pragma("GCC pop_options")
/* GCC notes that passing wide vectors differs between ABIs; ours never cross a translation unit. */
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

enum { MG_ISA_BASE = 0, MG_ISA_AVX2 = 1, MG_ISA_AVX512 = 2 };

/* The best instruction set of this CPU, or the one that the environment variable MINIGRAD_ISA (base, avx2,
 * avx512) asks for; -1 if the variable holds another word or a set that this CPU does not have. An empty
 * variable counts as unset. */
__attribute__((unused)) static int mg_isa_detect(void)
{
    static const char *const names[] = {"base", "avx2", "avx512"};
    int best = MG_ISA_BASE;
#if MG_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        best = MG_ISA_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
            best = MG_ISA_AVX512;
    }
#endif
    const char *wish = getenv("MINIGRAD_ISA");
    if (wish == NULL || *wish == '\0')
        return best;
    for (int isa = MG_ISA_BASE; isa <= best; isa++)
        if (strcmp(wish, names[isa]) == 0)
            return isa;
    return -1;
}

#endif
