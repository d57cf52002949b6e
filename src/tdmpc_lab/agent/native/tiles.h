// Products of one panel of weights with one or two tiles of rows, in three ways.
//
// TDMPC_AMX uses the tile instructions, TDMPC_EMULATION plain C++ that does what those instructions do (so that layouts,
// loops and the tile configuration can be tested on a processor without them), TDMPC_AVX512 dot products of pairs.
// All sum over the inputs in the same order for every row, wherever the row lies.
#pragma once

#include "kernels.h"
#include "vec.h"

namespace {

using namespace tdmpc;

#if defined(TDMPC_AMX) || defined(TDMPC_EMULATION)

// Palette 1: all eight tiles have 16 rows of 64 bytes.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64, "the format of ldtilecfg");

#ifdef TDMPC_AMX

struct Tiles {
    static void configure(const TileConfig* c) { asm volatile("ldtilecfg %0" ::"m"(*c)); }
    static void release() { asm volatile("tilerelease"); }
    template <int T>
    INLINE static void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(T));
    }
    template <int T>
    INLINE static void load(const void* p, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
    }
    template <int T>
    INLINE static void store(void* p, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
    }
    template <int C, int A, int B>
    INLINE static void multiply_add() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    }
};

#else

struct Tiles {
    struct Register {
        uint8_t bytes[16][64];
    };
    static thread_local Register registers[8];
    static thread_local TileConfig config;

    static void configure(const TileConfig* c) {
        config = *c;
        std::memset(registers, 0, sizeof registers);
    }
    static int rows(int tile) { return config.palette == 1 ? config.rows[tile] : 0; }
    static void release() { config.palette = 0; }
    template <int T>
    static void zero() {
        std::memset(&registers[T], 0, sizeof(Register));
    }
    template <int T>
    static void load(const void* p, int64_t stride) {
        zero<T>();
        for (int r = 0; r < rows(T); ++r)
            std::memcpy(registers[T].bytes[r], static_cast<const char*>(p) + r * stride, config.bytes[T]);
    }
    template <int T>
    static void store(void* p, int64_t stride) {
        for (int r = 0; r < rows(T); ++r)
            std::memcpy(static_cast<char*>(p) + r * stride, registers[T].bytes[r], config.bytes[T]);
    }
    template <int C, int A, int B>
    static void multiply_add() {
        for (int m = 0; m < rows(C); ++m) {
            float c[16];
            uint16_t a[32], b[32];
            std::memcpy(c, registers[C].bytes[m], 64);
            std::memcpy(a, registers[A].bytes[m], 64);
            for (int k = 0; k < config.bytes[A] / 4; ++k) {
                std::memcpy(b, registers[B].bytes[k], 64);
                const float a0 = from_bf16(a[2 * k]), a1 = from_bf16(a[2 * k + 1]);
                for (int n = 0; n < config.bytes[C] / 4; ++n) {
                    c[n] += a0 * from_bf16(b[2 * n]);
                    c[n] += a1 * from_bf16(b[2 * n + 1]);
                }
            }
            std::memcpy(registers[C].bytes[m], c, 64);
        }
    }
};
thread_local Tiles::Register Tiles::registers[8];
thread_local TileConfig Tiles::config;

#endif

// products (16 · Rows, 32) = rows of `a` times one panel, over `count` tiles of inputs, of the last of which only the
// first `pairs` pairs of inputs matter (the others are 0 and are multiplied where that costs nothing). Tiles 0 to 3 hold the sums,
// 4 and 5 the rows, 6 and 7 the weights.
template <int Rows>
__attribute__((noinline)) void multiply(const uint16_t* a, int64_t next, const uint16_t* panel, int count, int /*pairs*/, float* products, int64_t width) {
    Tiles::zero<0>();
    Tiles::zero<1>();
    if (Rows == 2) {
        Tiles::zero<2>();
        Tiles::zero<3>();
    }
    for (int k = 0; k < count; ++k) {
        Tiles::load<4>(a + k * kTile, 64);
        Tiles::load<6>(panel + k * kPanel, 64);
        Tiles::multiply_add<0, 4, 6>();
        Tiles::load<7>(panel + k * kPanel + kTile, 64);
        Tiles::multiply_add<1, 4, 7>();
        if (Rows == 2) {
            Tiles::load<5>(a + next + k * kTile, 64);
            Tiles::multiply_add<2, 5, 6>();
            Tiles::multiply_add<3, 5, 7>();
        }
    }
    Tiles::store<0>(products, width * 4);
    Tiles::store<1>(products + 16, width * 4);
    if (Rows == 2) {
        Tiles::store<2>(products + 16 * width, width * 4);
        Tiles::store<3>(products + 16 * width + 16, width * 4);
    }
}

const TileConfig kConfig;

void enter_tiles() { Tiles::configure(&kConfig); }
void leave_tiles() { Tiles::release(); }

#else  // TDMPC_AVX512

INLINE Vec dot_pairs(Vec sum, const uint16_t* a, __m512bh b) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    return Vec(_mm512_dpbf16_ps(__m512(sum), (__m512bh)_mm512_set1_epi32(pair), b));
}

INLINE __m512bh load_pairs(const uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }

// `Lines` rows of one tile at a time, their sums in registers.
template <int Lines>
INLINE void multiply_lines(const uint16_t* a, const uint16_t* panel, int count, int pairs, float* products, int64_t width) {
    Vec sums[Lines][2] = {};
    const auto some = [&](int first, int last) {
        for (int pair = first; pair < last; ++pair) {
            const __m512bh left = load_pairs(panel + 32 * pair), right = load_pairs(panel + kTile + 32 * pair);
#pragma GCC unroll 16
            for (int r = 0; r < Lines; ++r) {
                sums[r][0] = dot_pairs(sums[r][0], a + 32 * r + 2 * pair, left);
                sums[r][1] = dot_pairs(sums[r][1], a + 32 * r + 2 * pair, right);
            }
        }
    };
    for (int k = 0; k < count; ++k, a += kTile, panel += kPanel) some(0, k + 1 < count ? 16 : pairs);
#pragma GCC unroll 16
    for (int r = 0; r < Lines; ++r) {
        store(products + r * width, sums[r][0]);
        store(products + r * width + 16, sums[r][1]);
    }
}

template <int Rows>
__attribute__((noinline)) void multiply(const uint16_t* a, int64_t next, const uint16_t* panel, int count, int pairs, float* products, int64_t width) {
    for (int tile = 0; tile < Rows; ++tile)
        for (int half = 0; half < 2; ++half)
            multiply_lines<8>(a + tile * next + half * 256, panel, count, pairs, products + (16 * tile + 8 * half) * width, width);
}

void enter_tiles() {}
void leave_tiles() {}

#endif

}  // namespace
