/* Vectors of one instruction set: loads, masks, and elementary functions without branches.
 *
 * Include once for each pair of MG_BITS (32 or 64: the scalar's size) and MG_ISA / MG_BYTES (avx512 64, avx2
 * 32, base 16), between the markers of isa.h, after every other header (the names below are short). The
 * vocabulary:
 *
 *     T                   scalar, float or double
 *     V, VI, W            vector of W scalars; vector of W integers of that size, as a mask all ones or zero
 *     MG_NAME(f)          f_f32_avx512 and so on: f in the current inclusion; every v_* is such a name
 *     K(c)                c in every lane
 *     v_load(p)           v_store(p, v)            W scalars, no alignment needed
 *     v_load_part(p, m, fill)  v_store_part(p, v, m)    the first m < W scalars, nothing beyond is touched
 *     v_lt v_le v_gt v_ge v_eq v_ne (a, b)         masks; v_and v_or (m, n), v_not(m)
 *     v_select(m, a, b)   a where the mask is set, b elsewhere
 *     v_abs v_sign v_sqrt v_rsqrt v_floor (x)      v_copysign v_max v_min (a, b)
 *     v_fma(a, b, c)      v_powi(x, n)             v_hsum(x): sum of the lanes
 *     v_transpose(x)      x[W], W by W, in place   v_load_transposed(x, p, ld): from memory, cheaper
 *     v_exp v_expm1 v_log v_log1p v_tanh v_sigmoid v_softplus (x)    at most 3 ulp for every input, as
 *                         tests/test_kernels_math.py measures: infinities, denormal numbers, signed zeros
 *     v_sin v_cos v_erf (x), v_pow(a, b)           libm, lane by lane
 *
 * Results depend on the values alone, never on alignment or on a lane's neighbours. NaN in gives NaN out.
 * Rounding must be to nearest, the default. The polynomials are interpolations at Chebyshev nodes, computed
 * with 80 digits.
 */
#ifndef MG_VEC_H
#define MG_VEC_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "isa.h"

typedef float mg_f32;
typedef double mg_f64;
typedef int32_t mg_i32;
typedef int64_t mg_i64;
typedef uint32_t mg_u32;
typedef uint64_t mg_u64;

#define MG_CAT2_(a, b) a##b
#define MG_CAT2(a, b) MG_CAT2_(a, b)
#define MG_CAT3_(a, b, c) a##b##c
#define MG_CAT3(a, b, c) MG_CAT3_(a, b, c)
#define MG_NAME_(x, bits, isa) x##_f##bits##_##isa
#define MG_NAME__(x, bits, isa) MG_NAME_(x, bits, isa)
#define MG_NAME(x) MG_NAME__(x, MG_BITS, MG_ISA)
/* Without full unrolling an array of vectors lives in memory instead of registers. GCC must be told; Clang
 * unrolls such loops early by itself, and told to, does it too late (2.3 times slower products). */
#if defined(__clang__)
#define MG_UNROLL
#else
#define MG_UNROLL _Pragma("GCC unroll 16")
#endif
#define MG_INLINE static inline __attribute__((always_inline, unused))

#define T MG_CAT2(mg_f, MG_BITS)
#define V MG_NAME(mg_vec)
#define VI MG_NAME(mg_ivec)
#define VU MG_NAME(mg_uvec)
#define W (MG_BYTES * 8 / MG_BITS)

#define K MG_NAME(v_splat)
#define v_bits MG_NAME(v_bits)
#define v_load MG_NAME(v_load)
#define v_store MG_NAME(v_store)
#define v_load_part MG_NAME(v_load_part)
#define v_store_part MG_NAME(v_store_part)
#define v_lt MG_NAME(v_lt)
#define v_le MG_NAME(v_le)
#define v_gt MG_NAME(v_gt)
#define v_ge MG_NAME(v_ge)
#define v_eq MG_NAME(v_eq)
#define v_ne MG_NAME(v_ne)
#define v_and MG_NAME(v_and)
#define v_or MG_NAME(v_or)
#define v_not MG_NAME(v_not)
#define v_select MG_NAME(v_select)
#define v_abs MG_NAME(v_abs)
#define v_sign MG_NAME(v_sign)
#define v_copysign MG_NAME(v_copysign)
#define v_sqrt MG_NAME(v_sqrt)
#define v_rsqrt MG_NAME(v_rsqrt)
#define v_floor MG_NAME(v_floor)
#define v_max MG_NAME(v_max)
#define v_min MG_NAME(v_min)
#define v_at_least MG_NAME(v_at_least)
#define v_at_most MG_NAME(v_at_most)
#define v_clamp MG_NAME(v_clamp)
#define v_fma MG_NAME(v_fma)
#define v_powi MG_NAME(v_powi)
#define v_hsum MG_NAME(v_hsum)
#define v_load_pieces MG_NAME(v_load_pieces)
#define v_load_transposed MG_NAME(v_load_transposed)
#define v_transpose MG_NAME(v_transpose)
#define v_reduce MG_NAME(v_reduce)
#define v_pow2 MG_NAME(v_pow2)
#define v_ldexp MG_NAME(v_ldexp)
#define v_expm1_small MG_NAME(v_expm1_small)
#define v_split MG_NAME(v_split)
#define v_log_core MG_NAME(v_log_core)
#define v_exp MG_NAME(v_exp)
#define v_expm1 MG_NAME(v_expm1)
#define v_log MG_NAME(v_log)
#define v_log1p MG_NAME(v_log1p)
#define v_tanh MG_NAME(v_tanh)
#define v_sigmoid MG_NAME(v_sigmoid)
#define v_softplus MG_NAME(v_softplus)
#define v_sin MG_NAME(v_sin)
#define v_cos MG_NAME(v_cos)
#define v_erf MG_NAME(v_erf)
#define v_pow MG_NAME(v_pow)

/* Calls the scalar function of libm (or the compiler's builtin) for each lane; sinf and sin are one name to
 * us. */
#define MG_LIBM_32(name) name##f
#define MG_LIBM_64(name) name
#define MG_LIBM(name) MG_CAT2(MG_LIBM_, MG_BITS)(name)
#define MG_LANES(expression)                                                                                 \
    V r;                                                                                                     \
    for (int i = 0; i < W; i++)                                                                              \
        r[i] = (expression);                                                                                 \
    return r

#if MG_X86
/* The lanes' numbers, from which AVX2 makes the masks of partial loads and stores. */
static const mg_i32 mg_lane_32[] = {0, 1, 2, 3, 4, 5, 6, 7};
static const mg_i64 mg_lane_64[] = {0, 1, 2, 3};
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define MG_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MG_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VI){__VA_ARGS__})
#endif
#define MG_EACH_2(f, s) f(0, s), f(1, s)
#define MG_EACH_4(f, s) MG_EACH_2(f, s), f(2, s), f(3, s)
#define MG_EACH_8(f, s) MG_EACH_4(f, s), f(4, s), f(5, s), f(6, s), f(7, s)
#define MG_EACH_16(f, s)                                                                                     \
    MG_EACH_8(f, s), f(8, s), f(9, s), f(10, s), f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)

#endif

/* What depends on the scalar: 2^MANTISSA is the first float whose neighbours are one apart; LOG2_HI has so
 * few digits that its product with any exponent is exact; below EXP_LO exp is zero, above EXP_HI infinite;
 * below EXPM1_LO expm1 is -1. */
#undef MG_MANTISSA
#undef MG_BIAS
#undef MG_MIN_NORMAL
#undef MG_SQRT_HALF_BITS
#undef MG_LOG2_HI
#undef MG_LOG2_LO
#undef MG_EXP_LO
#undef MG_EXP_HI
#undef MG_EXPM1_LO
#if MG_BITS == 32
#define MG_MANTISSA 23
#define MG_BIAS 127
#define MG_MIN_NORMAL 0x1p-126f
#define MG_SQRT_HALF_BITS 0x3f3504f3
#define MG_LOG2_HI 0.693145751953125f
#define MG_LOG2_LO 1.42860682030941723e-6f
#define MG_EXP_LO (-104.0f)
#define MG_EXP_HI 89.0f
#define MG_EXPM1_LO (-40.0f)
#else
#define MG_MANTISSA 52
#define MG_BIAS 1023
#define MG_MIN_NORMAL 0x1p-1022
#define MG_SQRT_HALF_BITS 0x3fe6a09e667f3bcd
#define MG_LOG2_HI 0.6931471805598903
#define MG_LOG2_LO 5.49792301870837117e-14
#define MG_EXP_LO (-746.0)
#define MG_EXP_HI 710.0
#define MG_EXPM1_LO (-80.0)
#endif

/* The intrinsic of this vector's width and scalar: MG_MM(sqrt) is _mm512_sqrt_ps and so on. */
#undef MG_MM_WIDTH
#undef MG_MM_SCALAR
#if MG_BYTES == 64
#define MG_MM_WIDTH _mm512_
#elif MG_BYTES == 32
#define MG_MM_WIDTH _mm256_
#else
#define MG_MM_WIDTH _mm_
#endif
#if MG_BITS == 32
#define MG_MM_SCALAR _ps
#else
#define MG_MM_SCALAR _pd
#endif
#undef MG_MM
#define MG_MM(op) MG_CAT3(MG_MM_WIDTH, op, MG_MM_SCALAR)

#undef MG_EACH_LANE
#if W == 16
#define MG_EACH_LANE MG_EACH_16
#elif W == 8
#define MG_EACH_LANE MG_EACH_8
#elif W == 4
#define MG_EACH_LANE MG_EACH_4
#else
#define MG_EACH_LANE MG_EACH_2
#endif

typedef T V __attribute__((vector_size(MG_BYTES)));
typedef MG_CAT2(mg_i, MG_BITS) VI __attribute__((vector_size(MG_BYTES)));
typedef MG_CAT2(mg_u, MG_BITS) VU __attribute__((vector_size(MG_BYTES)));

/* ---- Instructions: what vector extensions say directly, and the few things they cannot say. */

MG_INLINE V K(T c)
{
    return c - (V){0};
}

MG_INLINE VI v_bits(V x)
{
    return (VI)x;
}

MG_INLINE V v_load(const T *p)
{
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

MG_INLINE void v_store(T *p, V v)
{
    memcpy(p, &v, sizeof v);
}

MG_INLINE VI v_lt(V a, V b) { return (VI)(a < b); }
MG_INLINE VI v_le(V a, V b) { return (VI)(a <= b); }
MG_INLINE VI v_gt(V a, V b) { return (VI)(a > b); }
MG_INLINE VI v_ge(V a, V b) { return (VI)(a >= b); }
MG_INLINE VI v_eq(V a, V b) { return (VI)(a == b); }
MG_INLINE VI v_ne(V a, V b) { return (VI)(a != b); }
MG_INLINE VI v_and(VI m, VI n) { return m & n; }
MG_INLINE VI v_or(VI m, VI n) { return m | n; }
MG_INLINE VI v_not(VI m) { return ~m; }
MG_INLINE V v_select(VI m, V a, V b) { return (V)((m & (VI)a) | (~m & (VI)b)); }

MG_INLINE V v_load_part(const T *p, ptrdiff_t m, T fill)
{
#if MG_BYTES == 64
    return (V)MG_MM(mask_loadu)(K(fill), (1u << m) - 1, p);
#elif MG_BYTES == 32
    VI lane;
    memcpy(&lane, MG_CAT2(mg_lane_, MG_BITS), sizeof lane);
    VI wanted = (VI)(lane < (VI){0} + (MG_CAT2(mg_i, MG_BITS))m);
    return v_select(wanted, (V)MG_MM(maskload)((const void *)p, (__m256i)wanted), K(fill));
#else
    V v = K(fill);
    for (int i = 0; i < W - 1; i++)
        if (i < m)
            v[i] = p[i];
    return v;
#endif
}

MG_INLINE void v_store_part(T *p, V v, ptrdiff_t m)
{
#if MG_BYTES == 64
    MG_MM(mask_storeu)(p, (1u << m) - 1, v);
#elif MG_BYTES == 32
    VI lane;
    memcpy(&lane, MG_CAT2(mg_lane_, MG_BITS), sizeof lane);
    MG_MM(maskstore)(p, (__m256i)(lane < (VI){0} + (MG_CAT2(mg_i, MG_BITS))m), v);
#else
    for (int i = 0; i < W - 1; i++)
        if (i < m)
            p[i] = v[i];
#endif
}

/* a * b + c: one rounding where the instruction set has it (AVX2, AVX-512, NEON), two on plain SSE2. */
MG_INLINE V v_fma(V a, V b, V c)
{
#if MG_BYTES > 16
    return (V)MG_MM(fmadd)(a, b, c);
#elif defined(__ARM_FEATURE_FMA)
    MG_LANES(MG_LIBM(__builtin_fma)(a[i], b[i], c[i]));
#else
    return a * b + c;
#endif
}

MG_INLINE V v_sqrt(V x)
{
#if MG_X86
    return (V)MG_MM(sqrt)(x);
#else
    MG_LANES(MG_LIBM(__builtin_sqrt)(x[i]));
#endif
}

MG_INLINE V v_floor(V x)
{
#if MG_BYTES > 16
    return (V)MG_MM(floor)(x);
#else
    MG_LANES(MG_LIBM(__builtin_floor)(x[i]));
#endif
}

/* The larger of x and lo, the smaller of x and hi; NaN as it is: x86's min and max return their second operand
 * when one is NaN. */
MG_INLINE V v_at_least(V x, T lo)
{
#if MG_X86
    return (V)MG_MM(max)(K(lo), x);
#else
    return v_select(v_lt(x, K(lo)), K(lo), x);
#endif
}

MG_INLINE V v_at_most(V x, T hi)
{
#if MG_X86
    return (V)MG_MM(min)(K(hi), x);
#else
    return v_select(v_gt(x, K(hi)), K(hi), x);
#endif
}

MG_INLINE V v_clamp(V x, T lo, T hi)
{
    return v_at_most(v_at_least(x, lo), hi);
}

/* ---- Simple functions. */

MG_INLINE V v_abs(V x)
{
    return (V)(v_bits(x) & ~v_bits(K((T)-0.0)));
}

/* |x| with the sign of s. */
MG_INLINE V v_copysign(V x, V s)
{
    return (V)(v_bits(v_abs(x)) | (v_bits(s) & v_bits(K((T)-0.0))));
}

/* -1, 0 or 1; x itself for both zeros and NaN. */
MG_INLINE V v_sign(V x)
{
    return v_select(v_or(v_lt(x, K(0)), v_gt(x, K(0))), v_copysign(K(1), x), x);
}

MG_INLINE V v_rsqrt(V x)
{
    return 1 / v_sqrt(x);
}

/* The larger; NaN if either is NaN. */
MG_INLINE V v_max(V a, V b)
{
    return v_select(v_or(v_gt(a, b), v_ne(a, a)), a, b);
}

MG_INLINE V v_min(V a, V b)
{
    return v_select(v_or(v_lt(a, b), v_ne(a, a)), a, b);
}

/* x^n by repeated squaring: for a literal n the loop unrolls into products. */
MG_INLINE V v_powi(V x, int n)
{
    V y = K(1);
    for (unsigned left = n < 0 ? -(unsigned)n : (unsigned)n; left; left >>= 1) {
        if (left & 1)
            y *= x;
        x *= x;
    }
    return n < 0 ? 1 / y : y;
}

/* Sum of the lanes, halves added to halves. */
MG_INLINE T v_hsum(V x)
{
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

/* In step s, lane l of row i changes places with lane l - s of row i + s wherever l has the bit s and i has
 * not; after s = 1, 2, 4, ... each lane stands in the row of its number. The lists say which lane of the
 * pair (row i, row i + s) comes to lane l of the first and of the second; the remainder only keeps them
 * valid where s >= W, which never runs. */
#define MG_MIX_FIRST(l, s) (((l) & (s) ? W + (l) - (s) : (l)) & (2 * W - 1))
#define MG_MIX_SECOND(l, s) (((l) & (s) ? W + (l) : (l) + (s)) & (2 * W - 1))
#define MG_MIX_ROWS(s)                                                                                       \
    for (int i = 0; i < W && s < W; i++)                                                                     \
        if (!(i & s)) {                                                                                      \
            V first = x[i], second = x[(i + s) % W];                                                         \
            x[i] = MG_SHUFFLE(first, second, MG_EACH_LANE(MG_MIX_FIRST, s));                                 \
            x[(i + s) % W] = MG_SHUFFLE(first, second, MG_EACH_LANE(MG_MIX_SECOND, s));                      \
        }

MG_INLINE void v_transpose(V *x)
{
    MG_UNROLL MG_MIX_ROWS(1)
    MG_UNROLL MG_MIX_ROWS(2)
    MG_UNROLL MG_MIX_ROWS(4)
    MG_UNROLL MG_MIX_ROWS(8)
}

/* The 16-byte pieces at p, p + stride, ... side by side. */
MG_INLINE V v_load_pieces(const T *p, ptrdiff_t stride)
{
#if MG_BYTES == 64
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const void *)p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const void *)(p + stride)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const void *)(p + 2 * stride)), 2);
    return (V)_mm512_insertf32x4(v, _mm_loadu_ps((const void *)(p + 3 * stride)), 3);
#elif MG_BYTES == 32
    __m256 v = _mm256_castps128_ps256(_mm_loadu_ps((const void *)p));
    return (V)_mm256_insertf128_ps(v, _mm_loadu_ps((const void *)(p + stride)), 1);
#else
    (void)stride;
    return v_load(p);
#endif
}

/* x[W] = the transpose of the square at p: the loads place the pieces, so only shuffles inside 16 bytes
 * remain, which are half of all and the cheaper half. */
MG_INLINE void v_load_transposed(V *x, const T *p, ptrdiff_t ld)
{
    enum { PIECE = 16 / sizeof(T) };
    MG_UNROLL
    for (int i = 0; i < W; i++)
        x[i] = v_load_pieces(p + i % PIECE * ld + i / PIECE * PIECE, PIECE * ld);
    MG_UNROLL MG_MIX_ROWS(1)
#if MG_BITS == 32
    MG_UNROLL MG_MIX_ROWS(2)
#endif
}

/* ---- exp and its family.
 *
 * x = k log 2 + r with |r| <= log 2 / 2, and exp(x) = 2^k (1 + r + r^2 q(r)). Adding and subtracting 1.5 *
 * 2^MANTISSA rounds to an integer, which then stands in the low bits of the sum: no conversion instruction
 * is needed, and 64-bit integers have none below AVX-512. */

#define MG_ROUNDER ((T)3 * (T)((uint64_t)1 << (MG_MANTISSA - 1)))

/* r, and through k the whole number of log 2 taken out of x. */
MG_INLINE V v_reduce(V x, V *k)
{
    *k = v_fma(x, K((T)1.4426950408889634), K(MG_ROUNDER)) - MG_ROUNDER;
    return v_fma(*k, K(-MG_LOG2_LO), v_fma(*k, K(-MG_LOG2_HI), x));
}

/* exp(r) - 1 for |r| <= log 2 / 2. */
MG_INLINE V v_expm1_small(V r)
{
#if MG_BITS == 32
    V q = K(0.00019890990824673653848f);
    q = v_fma(q, r, K(0.001393364999630925043f));
    q = v_fma(q, r, K(0.0083333109254809008349f));
    q = v_fma(q, r, K(0.041666464925285905408f));
    q = v_fma(q, r, K(0.16666666681623231402f));
    q = v_fma(q, r, K(0.5f));
#else
    V q = K(2.0914686968086877233e-9);
    q = v_fma(q, r, K(2.5105217004720745164e-8));
    q = v_fma(q, r, K(2.7557273643110295328e-7));
    q = v_fma(q, r, K(2.755725540020642443e-6));
    q = v_fma(q, r, K(0.000024801587325547741216));
    q = v_fma(q, r, K(0.00019841269874820625271));
    q = v_fma(q, r, K(0.0013888888888883748305));
    q = v_fma(q, r, K(0.0083333333333261351258));
    q = v_fma(q, r, K(0.041666666666666669755));
    q = v_fma(q, r, K(0.16666666666666670991));
    q = v_fma(q, r, K(0.5));
#endif
    return v_fma(q, r * r, r);
}

/* 2^k for a whole k of a normal number. */
MG_INLINE V v_pow2(V k)
{
    return (V)((VU)(k + (MG_ROUNDER + MG_BIAS)) << MG_MANTISSA);
}

/* y 2^k with one rounding, for y near 1 and any k that exp can need: outside the normal numbers in two
 * steps. */
MG_INLINE V v_ldexp(V y, V k)
{
#if MG_BYTES == 64
    return (V)MG_MM(scalef)(y, k);
#else
    V half = (k * (T)0.5 + MG_ROUNDER) - MG_ROUNDER;
    return y * v_pow2(half) * v_pow2(k - half);
#endif
}

MG_INLINE V v_exp(V x)
{
    V k, r = v_reduce(v_clamp(x, MG_EXP_LO, MG_EXP_HI), &k);
    return v_ldexp(v_expm1_small(r) + 1, k);
}

/* exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1). Halved, because 2^k may be too large for the format by one
 * step; for k = 0 not even halved, so that the smallest numbers keep their last bit. */
MG_INLINE V v_expm1(V x)
{
    V k, r = v_reduce(v_clamp(x, MG_EXPM1_LO, MG_EXP_HI), &k);
    V y = v_expm1_small(r);
    V half = v_pow2(k - 1);
    V scaled = v_fma(half, y, half - (T)0.5) * 2;
    return v_copysign(v_select(v_eq(k, K(0)), y, scaled), x);
}

/* tanh|x| = -e / (e + 2) with e = exp(-2|x|) - 1: full relative accuracy near zero, and no overflow. */
MG_INLINE V v_tanh(V x)
{
    V k, r = v_reduce(v_at_least(v_abs(x) * -2, MG_EXPM1_LO), &k);
    V scale = v_pow2(k);
    V e = v_fma(scale, v_expm1_small(r), scale - 1);
    return v_copysign(e / (e + 2), x);
}

/* exp(x) / (exp(x) + 1) with both sides divided by exp(r) = exp(x) 2^-k: neither overflows, and where the result is
 * denormal 2^k is rounded as it is. */
MG_INLINE V v_sigmoid(V x)
{
    V k, r = v_reduce(v_clamp(x, MG_EXP_LO, -MG_EXPM1_LO), &k);
    V scale = v_ldexp(K(1), k);
    return scale / (scale + (v_expm1_small(-r) + 1));
}

/* ---- log and its family.
 *
 * x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), s = f / (2 + f), and log(1 + f) = 2 atanh(s) = f - s (f
 * - R) with R = z (2/3 + 2/5 z + ...), z = s^2; since s (f - R) = f^2/2 - s (f^2/2 + R), f enters the sum
 * unrounded. */

/* 1 + f, and k, of a positive normal number. */
MG_INLINE V v_split(V x, V *k)
{
    VU biased = (VU)(v_bits(x) - MG_SQRT_HALF_BITS + ((mg_i64)MG_BIAS << MG_MANTISSA)) >> MG_MANTISSA;
    T integers = (T)((uint64_t)1 << MG_MANTISSA);
    *k = (V)(biased | (VU)K(integers)) - (integers + MG_BIAS);
    return (V)(v_bits(x) - (VI)((biased - MG_BIAS) << MG_MANTISSA));
}

/* k log 2 + log(1 + f). */
MG_INLINE V v_log_core(V f, V k)
{
    V s = f / (2 + f);
    V z = s * s;
    V half = f * f * (T)0.5;
#if MG_BITS == 32
    V p = K(0.23330581938241893822f);
    p = v_fma(p, z, K(0.28550816599711548665f));
    p = v_fma(p, z, K(0.4000012187697200149f));
    p = v_fma(p, z, K(0.66666666554451646331f));
#else
    V p = K(0.14616585424888621989);
    p = v_fma(p, z, K(0.15331710618210771568));
    p = v_fma(p, z, K(0.18182889455674946039));
    p = v_fma(p, z, K(0.22222211130259877029));
    p = v_fma(p, z, K(0.28571428626003268742));
    p = v_fma(p, z, K(0.39999999999899443233));
    p = v_fma(p, z, K(0.66666666666666696883));
#endif
    V small = v_fma(s, v_fma(p, z, half), k * MG_LOG2_LO);
    return v_fma(k, K(MG_LOG2_HI), f - (half - small));
}

MG_INLINE V v_log(V x)
{
    VI tiny = v_lt(x, K(MG_MIN_NORMAL));
    V k, m = v_split(v_select(tiny, x * ((T)((uint64_t)1 << MG_MANTISSA)), x), &k);
    k -= v_select(tiny, K(MG_MANTISSA), K(0));
    V y = v_log_core(m - 1, k);
    y = v_select(v_lt(x, K((T)INFINITY)), y, x);
    y = v_select(v_lt(x, K(0)), K((T)NAN), y);
    return v_select(v_eq(x, K(0)), K((T)-INFINITY), y);
}

/* The logarithm of 1 + x as rounded, except near zero, where f is x itself. Further out the rounding costs
 * half an ulp of a sum above sqrt(2) or below sqrt(1/2), so little that fdlibm's correction term is not
 * worth its division (it took the largest error from 2.4 to 2.1 ulp). */
MG_INLINE V v_log1p(V x)
{
    V u = 1 + x;
    V k, m = v_split(u, &k);
    V y = v_log_core(v_select(v_eq(k, K(0)), x, m - 1), k);
    y = v_select(v_lt(x, K((T)INFINITY)), v_copysign(y, x), x);
    y = v_select(v_lt(x, K(-1)), K((T)NAN), y);
    return v_select(v_eq(x, K(-1)), K((T)-INFINITY), y);
}

/* log(1 + exp(x)) = max(x, 0) + log(1 + e) with e = exp(-|x|), which cannot overflow. As 0 <= e <= 1, the
 * series holds without taking out powers of two, and none of the special cases of log1p can occur. */
MG_INLINE V v_softplus(V x)
{
    V e = v_exp(-v_abs(x));
    V s = e / (2 + e);
    V z = s * s;
#if MG_BITS == 32
    V p = K(0.2322438847783164191f);
    p = v_fma(p, z, K(0.21706564321202959706f));
    p = v_fma(p, z, K(0.28592358674320933025f));
    p = v_fma(p, z, K(0.39999706319421114328f));
    p = v_fma(p, z, K(0.6666666732056181487f));
#else
    V p = K(0.16164134868115164291);
    p = v_fma(p, z, K(0.088006964057227023157));
    p = v_fma(p, z, K(0.12001081045939590805));
    p = v_fma(p, z, K(0.13314143343919220937));
    p = v_fma(p, z, K(0.15385570117742977894));
    p = v_fma(p, z, K(0.18181789434252693612));
    p = v_fma(p, z, K(0.22222222717465243709));
    p = v_fma(p, z, K(0.28571428567108387665));
    p = v_fma(p, z, K(0.40000000000014584067));
    p = v_fma(p, z, K(0.6666666666666665856));
#endif
    return v_max(x, K(0)) + (e - s * (e - p * z));
}

/* ---- Left to libm, lane by lane. */

MG_INLINE V v_sin(V x)
{
    MG_LANES(MG_LIBM(sin)(x[i]));
}

MG_INLINE V v_cos(V x)
{
    MG_LANES(MG_LIBM(cos)(x[i]));
}

MG_INLINE V v_erf(V x)
{
    MG_LANES(MG_LIBM(erf)(x[i]));
}

MG_INLINE V v_pow(V a, V b)
{
    MG_LANES(MG_LIBM(pow)(a[i], b[i]));
}
