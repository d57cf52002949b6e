// Two-hot losses, decoded values and the optimizer's step, all in float32.
#include "learn.h"

#include "vec.h"

namespace {

using namespace tdmpc;

// The first n of sixteen entries, `other` for the rest, which is not touched.
INLINE Vec load_first(const float* p, int64_t n, float other) {
    if (n >= 16) return load(p);
#ifdef __AVX512F__
    return Vec(_mm512_mask_loadu_ps(__m512(all(other)), __mmask16((1u << n) - 1), p));
#else
    Vec v = all(other);
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
    return v;
#endif
}

INLINE void store_first(float* p, int64_t n, Vec v) {
    if (n >= 16) return store(p, v);
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), __m512(v));
#else
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

INLINE Vec root(Vec v) {
#ifdef __AVX512F__
    return Vec(_mm512_sqrt_ps(__m512(v)));
#else
    for (int i = 0; i < 16; ++i) v[i] = std::sqrt(v[i]);
    return v;
#endif
}

constexpr float kNothing = -1e30f;  // as a logit: its exponential is 0

// The logarithm of the exponentials' sum; `moment`: their mean weighted by the centres, where there are any.
INLINE float log_sum(const float* logits, int64_t bins, const float* centres, float* moment) {
    Vec most = all(kNothing);
    for (int64_t i = 0; i < bins; i += 16) most = at_least(load_first(logits + i, bins - i, kNothing), most);
    const float top = largest(most);
    Vec total = {}, weighted = {};
    for (int64_t i = 0; i < bins; i += 16) {
        const Vec e = exponential(load_first(logits + i, bins - i, kNothing) - top);
        total = total + e;
        if (centres) weighted = weighted + e * load_first(centres + i, bins - i, 0.0f);
    }
    const float all_of_it = sum(total);
    if (centres) *moment = sum(weighted) / all_of_it;
    return top + std::log(all_of_it);
}

void two_hot(const TwoHotJob& job, int64_t row, int64_t rows) {
    for (int64_t r = row; r < row + rows; ++r) {
        const float* logits = job.logits + r * job.bins;
        const int64_t lower = job.lower[r % job.targets];
        const float share = job.share[r % job.targets];
        job.log_sum[r] = log_sum(logits, job.bins, nullptr, nullptr);
        job.loss[r] = job.log_sum[r] - ((1.0f - share) * logits[lower] + share * logits[lower + 1]);
    }
}

void two_hot_back(const TwoHotJob& job, int64_t row, int64_t rows) {
    for (int64_t r = row; r < row + rows; ++r) {
        const float* logits = job.logits + r * job.bins;
        float* out = job.by_logits + r * job.bins;
        const float by = job.by_loss[r], share = job.share[r % job.targets];
        for (int64_t i = 0; i < job.bins; i += 16)
            store_first(out + i, job.bins - i, by * exponential(load_first(logits + i, job.bins - i, kNothing) - job.log_sum[r]));
        const int64_t lower = job.lower[r % job.targets];
        out[lower] -= (1.0f - share) * by;
        out[lower + 1] -= share * by;
    }
}

void decode(const DecodeJob& job, int64_t row, int64_t rows) {
    for (int64_t r = row; r < row + rows; ++r) {
        float x = 0.0f;
        job.log_sum[r] = log_sum(job.logits + r * job.bins, job.bins, job.centres, &x);
        job.expected[r] = x;
        job.value[r] = std::copysign(std::expm1(std::fabs(x)), x);
    }
}

void decode_back(const DecodeJob& job, int64_t row, int64_t rows) {
    for (int64_t r = row; r < row + rows; ++r) {
        const float* logits = job.logits + r * job.bins;
        float* out = job.by_logits + r * job.bins;
        const float by = job.by_value[r] * std::exp(std::fabs(job.expected[r]));
        for (int64_t i = 0; i < job.bins; i += 16) {
            const Vec p = exponential(load_first(logits + i, job.bins - i, kNothing) - job.log_sum[r]);
            store_first(out + i, job.bins - i, by * p * (load_first(job.centres + i, job.bins - i, 0.0f) - job.expected[r]));
        }
    }
}

double squares(const float* x, int64_t count) {
    Vec total[4] = {};
    int64_t i = 0;
    for (; i + 64 <= count; i += 64)
        for (int j = 0; j < 4; ++j) {
            const Vec v = load(x + i + 16 * j);
            total[j] = total[j] + v * v;
        }
    for (; i < count; i += 16) {
        const Vec v = load_first(x + i, count - i, 0.0f);
        total[0] = total[0] + v * v;
    }
    return sum((total[0] + total[1]) + (total[2] + total[3]));
}

void adam(const AdamJob& job, const AdamTensor& t, int64_t from, int64_t count, float scale) {
    const float new_mean = 1.0f - job.keep_mean, new_square = 1.0f - job.keep_square;
    for (int64_t i = from; i < from + count; i += 16) {
        const int64_t left = from + count - i;
        const Vec g = load_first(t.gradient + i, left, 0.0f) * scale;
        const Vec old = load_first(t.mean + i, left, 0.0f);
        const Vec mean = old + new_mean * (g - old);
        const Vec square = job.keep_square * load_first(t.square + i, left, 0.0f) + new_square * g * g;
        store_first(t.mean + i, left, mean);
        store_first(t.square + i, left, square);
        const Vec step = t.rate * mean / (root(square) / t.correction + job.eps);
        store_first(t.parameter + i, left, load_first(t.parameter + i, left, 0.0f) - step);
    }
}

void nothing() {}

}  // namespace

namespace tdmpc {

#ifdef __AVX512F__
extern const LearnBackend kLearnAvx512 = {two_hot, two_hot_back, decode, decode_back, squares, adam, nothing, nothing};
#else
extern const LearnBackend kLearnPlain = {two_hot, two_hot_back, decode, decode_back, squares, adam, nothing, nothing};
#endif

}  // namespace tdmpc
