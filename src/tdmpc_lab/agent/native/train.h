// What Python hands over for the forward and backward passes of an update (the same structures stand in library.py).
//
// A net is called on `rows` rows for `steps` steps; what it gives in one step is the first part of its input in the
// next. Each step's rows are filled up to a multiple of 32 with zeros, "all rows" are those of all steps.
#pragma once

#include "kernels.h"

namespace tdmpc {

enum Activation : int32_t { kNone = 0, kMish = 1, kRelu = 2, kSoftmax = 3 };

struct TrainLayer {
    Linear linear;           // packed for the outputs
    const uint16_t* turned;  // the same weights packed for the gradient by the inputs, null where nobody wants it
    int32_t activation;
    int32_t unused;
};

struct TrainNet {
    const TrainLayer* layers;  // (heads, count)
    int32_t heads, count;
    int32_t state, extra;  // sizes of the inputs' two parts: handed on from step to step, and new in each step
    int32_t state_tiles, extra_tiles;
    int32_t group;         // of the softmax
    int32_t inputs_first;  // the gradient by a weight is wanted as (inputs, outputs), not (outputs, inputs)
    float eps;
    int32_t unused;
};

struct Gradient {  // by one layer's parameters
    float *weight, *bias, *gain, *shift;
};

struct TrainJob {
    const float* state;      // (rows, state)
    const float* extra;      // (steps, rows, extra), null where there is none
    float* out;              // (heads, steps, rows, outputs)
    char* tape;              // what the backward pass needs
    const int64_t* dropped;  // dropout after the first LayerNorm: positions in (heads, steps · rows, outputs), ascending
    int64_t dropped_count;
    int64_t rows, steps;
    float keep_scale;  // 1 / (share of entries kept)
    int32_t taped;     // whether a backward pass will follow
    // the backward pass alone
    const float* by_out;        // as `out`
    float* by_state;            // as `state`, null where not wanted
    float* by_extra;            // as `extra`, null where not wanted
    const Gradient* gradients;  // (heads, count), null where not wanted
    char* memory;
    int64_t block;  // rows of one piece of work, a multiple of 32
};

// Where things lie on the tape and in the backward pass's memory.
struct TapeLayout {
    const TrainNet& net;
    int64_t step_rows, all_rows, blocks;

    TapeLayout(const TrainNet& n, const TrainJob& job)
        : net(n),
          step_rows(round_up(job.rows, 32)),
          all_rows(step_rows * job.steps),
          blocks((job.rows + job.block - 1) / job.block) {}

    const TrainLayer& layer(int head, int i) const { return net.layers[head * net.count + i]; }

    // Per layer: its inputs in tiles (all heads share the first layer's), LayerNorm's result without gain and shift in
    // tiles (or ReLU's result), and LayerNorm's factor per row.
    int64_t inputs_bytes(int i) const { return all_rows * layer(0, i).linear.input_tiles * kTileCols * 2; }
    int64_t kept_bytes(int i) const { return all_rows * layer(0, i).linear.outputs_padded * 2; }
    int64_t inputs_at(int head, int i) const {
        if (i == 0) return 0;
        int64_t at = inputs_bytes(0) + head * head_bytes();
        for (int j = 1; j < i; ++j) at += inputs_bytes(j);
        return at;
    }
    int64_t kept_at(int head, int i) const {
        int64_t at = inputs_at(head, net.count);
        for (int j = 0; j < i; ++j) at += kept_bytes(j);
        return at;
    }
    int64_t factors_at(int head, int i) const { return kept_at(head, net.count) + i * all_rows * 4; }
    int64_t head_bytes() const {
        int64_t bytes = 0;
        for (int j = 0; j < net.count; ++j) bytes += (j ? inputs_bytes(j) : 0) + kept_bytes(j) + all_rows * 4;
        return bytes;
    }
    int64_t tape_bytes() const { return inputs_bytes(0) + net.heads * head_bytes(); }

    // The backward pass's memory: for each head and layer the gradient by the product and the inputs, laid out for
    // their product, then the sums over each block's rows by bias, gain and shift; then each head's gradient by the
    // inputs.
    int64_t by_product_at(int head, int i) const {
        int64_t at = head * back_bytes();
        for (int j = 0; j < i; ++j) at += kept_bytes(j) + inputs_bytes(j) + sums_bytes(j);
        return at;
    }
    int64_t by_inputs_at(int head, int i) const { return by_product_at(head, i) + kept_bytes(i); }
    int64_t sums_bytes(int i) const { return blocks * 3 * layer(0, i).linear.outputs_padded * 4; }
    int64_t sums_at(int head, int i) const { return by_inputs_at(head, i) + inputs_bytes(i); }
    int64_t back_bytes() const {
        int64_t bytes = 0;
        for (int j = 0; j < net.count; ++j) bytes += kept_bytes(j) + inputs_bytes(j) + sums_bytes(j);
        return bytes;
    }
    int64_t by_input_at(int head) const {
        return net.heads * back_bytes() + head * all_rows * (net.state + net.extra) * 4;
    }
    int64_t memory_bytes() const { return by_input_at(net.heads); }
};

struct TrainBackend {
    void (*read)(const TrainNet&, const TrainJob&, int64_t row, int rows);
    void (*forward)(const TrainNet&, const TrainJob&, int head, int64_t row, int rows, char* workspace);
    void (*backward)(const TrainNet&, const TrainJob&, int head, int64_t row, int rows, char* workspace);
    void (*by_weight)(const TrainNet&, const TrainJob&, int head, int layer, int strip, char* workspace);
    void (*add_heads)(const TrainNet&, const TrainJob&, int64_t row, int rows);
    void (*enter)();
    void (*leave)();
};

extern const TrainBackend kTrainAmx, kTrainAvx512, kTrainEmulation;

constexpr int kStrip = 64;  // rows of a weight's gradient that one piece of work makes

// Entries of the longest row, inputs among them.
inline int64_t widest_layer(const TrainNet& net) {
    int64_t widest = kTileCols * (net.state_tiles + net.extra_tiles);
    for (int i = 0; i < net.count; ++i)
        if (widest < net.layers[i].linear.outputs_padded) widest = net.layers[i].linear.outputs_padded;
    return widest;
}

// Bytes of scratch memory for a block of `rows` rows.
inline int64_t train_workspace_bytes(const TrainNet& net, int64_t rows) {
    const int64_t widest = widest_layer(net), padded = round_up(rows, 32);
    return kMostProducts * (widest + 16) * 4 + 2 * padded * widest * 2 + padded * net.state * 4 +
           3 * widest * net.count * 4 + 4096;
}

}  // namespace tdmpc
