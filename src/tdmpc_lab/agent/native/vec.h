// Sixteen floats at a time: the compiler's vectors, and the few instructions it would not find by itself.
//
// Everything is in an unnamed namespace: this file is compiled several times for different processors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

typedef float Vec __attribute__((vector_size(64)));
typedef int32_t IVec __attribute__((vector_size(64)));
typedef uint32_t UVec __attribute__((vector_size(64)));
typedef float VecAnywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t UVecAnywhere __attribute__((vector_size(64), aligned(4), may_alias));

#define INLINE inline __attribute__((always_inline))

INLINE Vec load(const float* p) { return *reinterpret_cast<const VecAnywhere*>(p); }
INLINE void store(float* p, Vec v) { *reinterpret_cast<VecAnywhere*>(p) = v; }
INLINE Vec all(float x) { return Vec{} + x; }
INLINE Vec lanes_below(int n, Vec v, float other) {
    const IVec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < n ? v : all(other);
}

// Of a NaN and a number all of these give the NaN, if it stands first.
INLINE Vec at_least(Vec v, Vec low) {
#ifdef __AVX512F__
    return Vec(_mm512_max_ps(__m512(low), __m512(v)));
#else
    return v < low ? low : v;
#endif
}
INLINE Vec at_most(Vec v, Vec high) {
#ifdef __AVX512F__
    return Vec(_mm512_min_ps(__m512(high), __m512(v)));
#else
    return v > high ? high : v;
#endif
}

INLINE Vec reciprocal(Vec v) {
#ifdef __AVX512F__
    const Vec r = Vec(_mm512_rcp14_ps(__m512(v)));
    return r * (2.0f - v * r);
#else
    return 1.0f / v;
#endif
}

// The nearest whole number, of one between −2²² and 2²².
INLINE Vec nearest(Vec v) {
#ifdef __AVX512F__
    return Vec(_mm512_roundscale_ps(__m512(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    return (v + 12582912.0f) - 12582912.0f;
#endif
}

// e^v, relative error below 3e-7; 0 far below −87, not defined above 88. NaN stays NaN.
INLINE Vec exponential(Vec v) {
    v = at_least(v, all(-104.0f));
    const Vec t = v * 1.44269504088896f;
    const Vec n = nearest(t);
    Vec r = v - n * 0.693145752f;  // ln 2 in two parts
    r = r - n * 1.42860677e-6f;
    Vec p = r * 1.38888889e-3f + 8.33333377e-3f;
    p = p * r + 4.16666679e-2f;
    p = p * r + 1.66666672e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
#ifdef __AVX512F__
    return Vec(_mm512_scalef_ps(__m512(p), __m512(n)));
#else
    // in two factors, so that the exponent of neither leaves its range
    const IVec whole = __builtin_convertvector(n, IVec), half = whole >> 1;
    return p * Vec((half + 127) << 23) * Vec((whole - half + 127) << 23);
#endif
}

// e^v, relative error below 1e-5, for −80 < v ≤ 20: what is rounded to bfloat16 next needs no more. NaN stays NaN.
INLINE Vec exponential_rough(Vec v) {
    const Vec t = v * 1.44269504088896f;
    const Vec n = nearest(t);
    const Vec r = t - n;
    Vec p = r * 9.58277e-3f + 5.59062e-2f;
    p = p * r + 2.4024099e-1f;
    p = p * r + 6.9312422e-1f;
    p = p * r + 1.0f;
#ifdef __AVX512F__
    return Vec(_mm512_scalef_ps(__m512(p), __m512(n)));
#else
    return p * Vec((__builtin_convertvector(n, IVec) + 127) << 23);
#endif
}

INLINE Vec mish_argument(Vec x) { return at_most(at_least(x, all(-80.0f)), all(20.0f)); }

// x tanh(ln(1 + e^x)) = x m / (m + 2) with m = e^x (e^x + 2).
INLINE Vec mish(Vec x) {
    const Vec e = exponential_rough(mish_argument(x));
    const Vec m = e * (e + 2.0f);
    return x * m * reciprocal(m + 2.0f);
}

// Its derivative. With r = 1 / (m + 2): m r + 4 x e (e + 1) r².
INLINE Vec mish_slope(Vec x) {
    const Vec e = exponential_rough(mish_argument(x));
    const Vec m = e * (e + 2.0f);
    const Vec r = reciprocal(m + 2.0f);
    return m * r + 4.0f * x * (e * (e + 1.0f) * r) * r;
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(v, ...) __builtin_shuffle(v, IVec{__VA_ARGS__})
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, IVec{__VA_ARGS__})
#endif

INLINE Vec swap1(Vec v) { return SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14); }
INLINE Vec swap2(Vec v) { return SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13); }
INLINE Vec swap4(Vec v) { return SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11); }

INLINE Vec swap8(Vec v) { return SHUFFLE(v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7); }

INLINE float sum(Vec v) {
    v = v + swap8(v);
    v = v + swap4(v);
    v = v + swap2(v);
    v = v + swap1(v);
    return v[0];
}

INLINE float largest(Vec v) {
    v = at_least(v, swap8(v));
    v = at_least(v, swap4(v));
    v = at_least(v, swap2(v));
    v = at_least(v, swap1(v));
    return v[0];
}

// Softmax of the lower and of the upper eight lanes.
INLINE Vec softmax8(Vec v) {
    Vec m = at_least(v, swap1(v));
    m = at_least(m, swap2(m));
    m = at_least(m, swap4(m));
    const Vec e = exponential(v - m);
    Vec s = e + swap1(e);
    s = s + swap2(s);
    s = s + swap4(s);
    return e * reciprocal(s);
}

// bfloat16, to nearest and to even; NaN stays NaN. In the lower half of each lane.
INLINE UVec bits16(Vec v) {
    const UVec bits = UVec(v);
    const UVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return v == v ? rounded : UVec{} + 0x7fc0u;
}

INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return 0x7fc0;
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

INLINE float from_bf16(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

// 32 neighbouring bfloat16.
INLINE void store_bf16(uint16_t* p, Vec low, Vec high) {
#ifdef __AVX512BF16__
    const __m512bh both = _mm512_cvtne2ps_pbh(__m512(high), __m512(low));
    std::memcpy(p, &both, 64);
#else
    const UVec a = bits16(low), b = bits16(high);
    for (int i = 0; i < 16; ++i) p[i] = uint16_t(a[i]);
    for (int i = 0; i < 16; ++i) p[16 + i] = uint16_t(b[i]);
#endif
}

// A 16 by 16 square on its side: four times the upper and the lower half's rows, interleaved entry by entry.
INLINE void transpose(UVec (&v)[16]) {
    UVec next[16];
#pragma GCC unroll 4
    for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            next[2 * i] = INTERLEAVE(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = INTERLEAVE(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) v[i] = next[i];
    }
}

}  // namespace
