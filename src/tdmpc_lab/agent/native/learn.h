// Two-hot losses, decoded values and the optimizer's step: what an update does besides its networks (the same
// structures stand in library.py).
#pragma once

#include <cstdint>

namespace tdmpc {

// Cross-entropy of softmax(logits) with two neighbouring bins. Row r has the target of number r % targets.
struct TwoHotJob {
    const float* logits;   // (rows, bins)
    const int64_t* lower;  // (targets): the first of its two bins
    const float* share;    // (targets): what falls to the second
    float* loss;           // (rows)
    float* log_sum;        // (rows): the logarithm of the exponentials' sum, for the backward pass
    const float* by_loss;  // (rows), from here on for the backward pass alone
    float* by_logits;      // (rows, bins)
    int64_t rows, targets, bins;
};

// symexp of the expected bin of softmax(logits).
struct DecodeJob {
    const float* logits;    // (rows, bins)
    const float* centres;   // (bins)
    float* value;           // (rows)
    float* expected;        // (rows): before symexp
    float* log_sum;         // (rows)
    const float* by_value;  // (rows), from here on for the backward pass alone
    float* by_logits;       // (rows, bins)
    int64_t rows, bins;
};

struct AdamTensor {
    float* parameter;
    const float* gradient;
    float *mean, *square;  // running averages of the gradient and of its square
    int64_t count;
    float rate;        // the learning rate over the mean's correction for its start at zero
    float correction;  // of the square's root for the same
    int32_t part;      // whose norm it counts to
    int32_t unused;
};

struct AdamJob {
    const AdamTensor* tensors;
    int64_t count;
    float* norms;  // (parts + 1): the gradient's by part and, last, of all, before clipping
    int32_t parts;
    float max_norm;
    float keep_mean, keep_square;  // beta 1 and 2
    float eps;
    int32_t unused;
};

struct LearnBackend {
    void (*two_hot)(const TwoHotJob&, int64_t row, int64_t rows);
    void (*two_hot_back)(const TwoHotJob&, int64_t row, int64_t rows);
    void (*decode)(const DecodeJob&, int64_t row, int64_t rows);
    void (*decode_back)(const DecodeJob&, int64_t row, int64_t rows);
    double (*squares)(const float* x, int64_t count);
    void (*adam)(const AdamJob&, const AdamTensor&, int64_t from, int64_t count, float scale);
    void (*enter)();
    void (*leave)();
};

extern const LearnBackend kLearnAvx512, kLearnPlain;

constexpr int64_t kLossRows = 64;    // of one piece of work
constexpr int64_t kChunk = 1 << 14;  // entries of a tensor that are one piece of work

}  // namespace tdmpc
