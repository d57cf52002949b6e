// What Python hands over (the same structures stand in library.py), and the layout of everything in memory.
//
// Activations lie in tiles of 16 rows by 32 bfloat16 (1 KB), the tiles of 16 rows one after another:
//     [row / 16][column / 32][row % 16][column % 32]
// Weights lie in panels of 32 outputs, a panel as two tiles of 16 outputs for each 32 inputs, the inputs in pairs:
//     [output / 32][input / 32][(output / 16) % 2][(input / 2) % 16][output % 16][input % 2]
// Both are what an AMX tile load reads in one go; what is beyond the true sizes holds zeros.
#pragma once

#include <cstdint>

#define TDMPC_ABI 3

namespace tdmpc {

constexpr int kTileRows = 16;          // rows of an activation tile, outputs of a weight tile
constexpr int kTileCols = 32;          // columns of an activation tile, inputs of a weight tile
constexpr int kTile = 512;             // entries of a tile
constexpr int kPanel = 2 * kTile;      // entries of a panel for 32 inputs
constexpr int kMaxLayers = 16;
constexpr int kMostProducts = 64;      // rows whose products are held at a time

struct Linear {
    const uint16_t* weight;  // packed
    const float* bias;       // (outputs_padded)
    const float* gain;       // LayerNorm (outputs_padded), null where there is none
    const float* shift;
    int32_t input_tiles;     // inputs / 32, rounded up
    int32_t outputs;
    int32_t outputs_padded;  // to a multiple of 32
    int32_t last_pairs;      // pairs of true inputs in the last tile of inputs
};

struct Net {
    Linear layers[kMaxLayers];  // the last one has no norm and no activation but what its caller gives it
    int32_t count;
    int32_t unused;
};

struct Model {
    Net dynamics, reward, termination, policy;
    const Net* q;          // one for each head
    const float* centres;  // (bins, padded to 32)
    int32_t latent, action, group;
    int32_t latent_tiles, action_tiles, hidden_tiles;  // hidden: of the widest hidden layer
    int32_t outputs_padded;                            // of the widest layer
    int32_t clipped;                                   // policy: 0 squashed, 1 clipped Gaussian
    float log_std_min, log_std_max, eps;
    int32_t unused;
};

// Sequences of actions (envs, samples, horizon, action) followed from z (envs, latent). With `noise`, standard normal
// draws of the same shape, the policy chooses the actions, and they are written.
struct RollJob {
    const float* z;
    const float* noise;
    float* actions;
    const float* discounts;  // (horizon)
    float* value;            // (envs, samples): sum of the rewards until the end, discounted
    float* alive;            // (envs, samples): 1 where the end was not reached, else 0
    uint16_t* last;          // (envs, samples, latent in whole tiles): the last latents
    int64_t envs, samples, horizon;
};

// What two heads expect after the latents `last` (rows, latent in whole tiles) and the policy's action: value (rows).
struct TerminalJob {
    const uint16_t* last;
    const float* noise;  // (rows, action)
    float* value;
    int64_t rows;
    int32_t heads[2];
};

// One weight matrix, or one vector where `inputs` is 0, to be laid out as above.
struct PackJob {
    const float* source;
    void* target;  // bfloat16 panels, or `outputs_padded` floats
    int64_t output_stride, input_stride;
    int32_t outputs, inputs;
    int32_t outputs_padded, input_tiles;
    int32_t at, tile;  // the first output and input tile that this source fills (parts of one matrix)
    float fill;           // what a vector holds beyond `outputs`
    int32_t unused;
};

struct Backend {
    void (*roll)(const Model&, const RollJob&, int64_t row, int rows, char* workspace);
    void (*terminal)(const Model&, const TerminalJob&, int64_t row, int rows, char* workspace);
    void (*pack)(const PackJob&, int panel);
    void (*apply)(int32_t function, float* x, int64_t count);  // for tests; a multiple of 16
    void (*enter)();  // once in every thread before, and `leave` after
    void (*leave)();
};

extern const Backend kAmx, kAvx512, kEmulation;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Bytes of scratch memory for a block of `rows` rows.
inline int64_t workspace_bytes(const Model& m, int64_t rows) {
    const int64_t padded = round_up(rows, 32);
    const int64_t state = padded * (m.latent_tiles + m.action_tiles) * kTileCols * 2;
    const int64_t hidden = padded * m.hidden_tiles * kTileCols * 2;
    const int64_t products = kMostProducts * (int64_t(m.outputs_padded) + 16) * 4;
    const int64_t starts = padded * 2 * m.hidden_tiles * kTileCols * 4;
    const int64_t numbers = padded * (1 + m.action) * 4;
    return round_up(state, 64) + 2 * round_up(hidden, 64) + round_up(products, 64) + round_up(starts, 64) +
           round_up(numbers, 64) + 1024;
}

}  // namespace tdmpc
