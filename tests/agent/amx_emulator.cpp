// AMX tile instructions on a processor that has none: the machine code itself, which ends in an illegal instruction
// there, is decoded in that signal's handler and done in plain C++.
//
// What an instruction may not do (a tile that is not configured, a configuration with reserved bytes, one tile twice in
// a product) ends the process with a message, where the processor would end it without. Everything is as the manual of
// the architecture describes it; a product sums the even and the odd entries of the pairs apart.
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#include <atomic>

namespace {

struct Config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(Config) == 64, "as in memory");

thread_local Config config;
thread_local uint8_t tiles[8][16][64];
std::atomic<int64_t> done[6];  // instructions: configure, release, zero, load, store, product
struct sigaction before;

[[noreturn]] void refuse(const char* why) {
    std::fprintf(stderr, "AMX: %s\n", why);
    std::fflush(stderr);
    std::abort();
}

void configure(const Config& c) {
    if (c.palette > 1) refuse("ldtilecfg: there is no such palette");
    for (uint8_t byte : c.reserved)
        if (byte != 0) refuse("ldtilecfg: a reserved byte is set");
    if (c.palette == 1)
        for (int i = 0; i < 16; ++i) {
            if (i >= 8 && (c.bytes[i] || c.rows[i])) refuse("ldtilecfg: there are eight tiles");
            if (c.bytes[i] > 64 || c.rows[i] > 16) refuse("ldtilecfg: a tile has 16 rows of 64 bytes at most");
            if ((c.bytes[i] == 0) != (c.rows[i] == 0)) refuse("ldtilecfg: a tile with rows or columns only");
        }
    config = c;
    std::memset(tiles, 0, sizeof tiles);
}

void need(int tile) {
    if (config.palette != 1) refuse("no tiles are configured in this thread");
    if (tile > 7 || config.rows[tile] == 0) refuse("a tile that is not configured");
}

float from_bf16(const uint8_t* p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    const uint32_t bits = uint32_t(half) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// c += a b
void multiply(int c, int a, int b) {
    need(c), need(a), need(b);
    if (c == a || c == b || a == b) refuse("tdpbf16ps: one tile twice");
    if (config.bytes[c] % 4 || config.bytes[a] % 4 || config.bytes[b] % 4) refuse("tdpbf16ps: bytes are not whole floats");
    if (config.bytes[c] != config.bytes[b] || config.rows[a] != config.rows[c] || config.bytes[a] / 4 != config.rows[b])
        refuse("tdpbf16ps: sizes that do not fit");
    const int inner = config.bytes[a] / 4, columns = config.bytes[c] / 4;
    for (int m = 0; m < config.rows[c]; ++m) {
        float even[16] = {}, odd[16] = {};
        for (int k = 0; k < inner; ++k) {
            const float a0 = from_bf16(tiles[a][m] + 4 * k), a1 = from_bf16(tiles[a][m] + 4 * k + 2);
            for (int n = 0; n < columns; ++n) {
                even[n] = __builtin_fmaf(a0, from_bf16(tiles[b][k] + 4 * n), even[n]);
                odd[n] = __builtin_fmaf(a1, from_bf16(tiles[b][k] + 4 * n + 2), odd[n]);
            }
        }
        float sums[16];
        std::memcpy(sums, tiles[c][m], 64);
        for (int n = 0; n < columns; ++n) sums[n] += even[n] + odd[n];
        std::memset(tiles[c][m], 0, 64);
        std::memcpy(tiles[c][m], sums, 4 * columns);
    }
}

int64_t general_register(const ucontext_t* context, int number) {
    static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[places[number]];
}

// ModRM with a memory operand. `index`: the register that a tile's rows are apart, times the scale, else 0.
struct Operand {
    char* base;
    int64_t stride;
    int length;  // bytes of ModRM, SIB and displacement
    bool has_sib;
};

Operand memory(const ucontext_t* context, const uint8_t* p, bool high_base, bool high_index) {
    const int mod = p[0] >> 6, rm = p[0] & 7;
    Operand found = {nullptr, 0, 1, rm == 4};
    int base = rm | (high_base ? 8 : 0);
    bool no_base = false;
    if (found.has_sib) {
        const uint8_t sib = p[found.length++];
        const int index = (sib >> 3 & 7) | (high_index ? 8 : 0);
        base = (sib & 7) | (high_base ? 8 : 0);
        no_base = (sib & 7) == 5 && mod == 0;
        if (index != 4) found.stride = general_register(context, index) << (sib >> 6);
    } else if (rm == 5 && mod == 0) {  // relative to the next instruction, which follows these four bytes
        int32_t displacement;
        std::memcpy(&displacement, p + 1, 4);
        found.length = 5;
        found.base = reinterpret_cast<char*>(const_cast<uint8_t*>(p)) + found.length + displacement;
        return found;
    }
    int64_t address = no_base ? 0 : general_register(context, base);
    if (mod == 1) address += int8_t(p[found.length++]);
    if (mod == 2 || no_base) {
        int32_t displacement;
        std::memcpy(&displacement, p + found.length, 4);
        address += displacement;
        found.length += 4;
    }
    found.base = reinterpret_cast<char*>(address);
    return found;
}

// The instruction at `p`; its length, or 0 if it is none of these.
int run(const ucontext_t* context, const uint8_t* p) {
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2) return 0;                          // VEX, map 0F38
    const bool high_tile = !(p[1] & 0x80), high_index = !(p[1] & 0x40), high_base = !(p[1] & 0x20);
    const int prefix = p[2] & 3, other = ~(p[2] >> 3) & 15;  // prefix: none, 66, F3, F2
    if (p[2] & 0x84) return 0;                               // W0, 128 bits
    const uint8_t opcode = p[3], modrm = p[4];
    const bool in_memory = modrm >> 6 != 3;
    const int tile = (modrm >> 3 & 7) | (high_tile ? 8 : 0);
    if (opcode == 0x49 && prefix == 0 && modrm == 0xc0) {
        config.palette = 0;
        ++done[1];
        return 5;
    }
    if (opcode == 0x49 && prefix == 0 && in_memory && tile == 0) {
        const Operand from = memory(context, p + 4, high_base, high_index);
        Config c;
        std::memcpy(&c, from.base + from.stride, sizeof c);
        configure(c);
        ++done[0];
        return 4 + from.length;
    }
    if (opcode == 0x49 && prefix == 3 && !in_memory && (modrm & 7) == 0) {
        need(tile);
        std::memset(tiles[tile], 0, sizeof tiles[tile]);
        ++done[2];
        return 5;
    }
    if (opcode == 0x4b && (prefix == 3 || prefix == 2) && in_memory) {  // tileloadd, tilestored
        need(tile);
        const Operand at = memory(context, p + 4, high_base, high_index);
        if (!at.has_sib) refuse("a tile's memory operand without an index");
        if (prefix == 3) std::memset(tiles[tile], 0, sizeof tiles[tile]);
        for (int row = 0; row < config.rows[tile]; ++row) {
            char* const line = at.base + row * at.stride;
            if (prefix == 3)
                std::memcpy(tiles[tile][row], line, config.bytes[tile]);
            else
                std::memcpy(line, tiles[tile][row], config.bytes[tile]);
        }
        ++done[prefix == 3 ? 3 : 4];
        return 4 + at.length;
    }
    if (opcode == 0x5c && prefix == 2 && !in_memory) {
        multiply(tile, (modrm & 7) | (high_base ? 8 : 0), other);
        ++done[5];
        return 5;
    }
    return 0;
}

void on_illegal_instruction(int signal, siginfo_t* info, void* data) {
    ucontext_t* const context = static_cast<ucontext_t*>(data);
    greg_t& at = context->uc_mcontext.gregs[REG_RIP];
    // what follows is most often another one: no signal for those
    int length = run(context, reinterpret_cast<const uint8_t*>(at));
    if (length == 0) {
        if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(signal, info, data);
        if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return before.sa_handler(signal);
        sigaction(SIGILL, &before, nullptr);  // it is met again
        return;
    }
    for (; length > 0; length = run(context, reinterpret_cast<const uint8_t*>(at))) at += length;
}

}  // namespace

extern "C" int amx_emulator_start() {
    struct sigaction action = {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    return sigaction(SIGILL, &action, &before);
}

// Instructions so far: configure, release, zero, load, store, product.
extern "C" void amx_emulator_done(int64_t* counts) {
    for (int i = 0; i < 6; ++i) counts[i] = done[i];
}
