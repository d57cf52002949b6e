// The world model over a block of rows, from the first step of a sequence to its value, without leaving the cache.
//
// Compiled once for each way of multiplying in tiles.h. A row's result does not depend on its block or its neighbours,
// so any number of threads gives the same numbers.
#include "rows.h"

namespace {

using namespace tdmpc;

// The block's part of the workspace.
struct Scratch {
    Rows state;  // latent, then action
    uint16_t *hidden1, *hidden2;
    float *products, *starts;
    float *first, *action;  // a head's value, the policy's action
};

Scratch carve(const Model& m, int rows, char* memory) {
    const int64_t padded = round_up(rows, 32);
    const auto take = [&memory](int64_t bytes) {
        char* const here = memory;
        memory += round_up(bytes, 64);
        return here;
    };
    Scratch s;
    s.state.tiles = m.latent_tiles + m.action_tiles;
    s.state.data = reinterpret_cast<uint16_t*>(take(padded * s.state.tiles * kTileCols * 2));
    s.hidden1 = reinterpret_cast<uint16_t*>(take(padded * m.hidden_tiles * kTileCols * 2));
    s.hidden2 = reinterpret_cast<uint16_t*>(take(padded * m.hidden_tiles * kTileCols * 2));
    s.products = reinterpret_cast<float*>(take(kMostProducts * (int64_t(m.outputs_padded) + 16) * 4));
    s.starts = reinterpret_cast<float*>(take(padded * 2 * m.hidden_tiles * kTileCols * 4));
    s.first = reinterpret_cast<float*>(take(padded * (1 + m.action) * 4));
    s.action = s.first + padded;
    return s;
}

// Bias, then LayerNorm and Mish where the layer has a norm, else ReLU.
INLINE void hidden_row(const Linear& w, const float* bias, float eps, float* x, Rows out, int row) {
    if (w.gain == nullptr) {
        for (int i = 0; i < w.outputs_padded; i += 32)
            store_bf16(out.at(row, i / 32), at_least(load(x + i) + load(bias + i), Vec{}),
                       at_least(load(x + i + 16) + load(bias + i + 16), Vec{}));
        return;
    }
    float mean, scale;
    moments(w, bias, eps, x, mean, scale);
    const auto norm = [&](int i) { return (load(x + i) - mean) * scale * load(w.gain + i) + load(w.shift + i); };
    for (int i = 0; i < w.outputs_padded; i += 32) store_bf16(out.at(row, i / 32), mish(norm(i)), mish(norm(i + 16)));
}

// Bias, LayerNorm and the softmax over groups: the next latent.
INLINE void latent_row(const Linear& w, const float* bias, float eps, int group, float* x, Rows out, int row) {
    float mean, scale;
    moments(w, bias, eps, x, mean, scale);
    const auto norm = [&](int i) { return (load(x + i) - mean) * scale * load(w.gain + i) + load(w.shift + i); };
    if (group == 8) {
        for (int i = 0; i < w.outputs_padded; i += 32)
            store_bf16(out.at(row, i / 32), softmax8(norm(i)), softmax8(norm(i + 16)));
        return;
    }
    for (int i = 0; i < w.outputs_padded; i += 16) store(x + i, norm(i));
    softmax_groups(x, w.outputs, w.outputs_padded, group);
    store_row(out, row, x, w.outputs_padded);
}

// The number behind logits: symexp of the expected bin. The bias beyond the bins is so low that they weigh nothing.
INLINE float decode(const Linear& w, const float* centres, float* x) {
    Vec most = load(x) + load(w.bias);
    for (int i = 0; i < w.outputs_padded; i += 16) {
        const Vec v = load(x + i) + load(w.bias + i);
        store(x + i, v);
        most = at_least(v, most);
    }
    const float top = largest(most);
    Vec weight = {}, weighted = {};
    for (int i = 0; i < w.outputs_padded; i += 16) {
        const Vec e = exponential(load(x + i) - top);
        weight = weight + e;
        weighted = weighted + e * load(centres + i);
    }
    const float bin = sum(weighted) / sum(weight);
    return std::copysign(std::expm1(std::fabs(bin)), bin);
}

// All layers but the last. The first reads `count` tiles from `from` on and takes its bias from `bias_of(row)`.
template <class Bias>
INLINE Rows hidden(const Model& m, const Net& net, Rows in, int rows, int from, int count, const Scratch& s, Bias bias_of) {
    Rows out = in;
    for (int i = 0; i + 1 < net.count; ++i) {
        const Linear& w = net.layers[i];
        const Rows source = out;
        out = {i % 2 ? s.hidden2 : s.hidden1, w.outputs_padded / kTileCols};
        if (i == 0)
            linear(w, source, rows, from, count, s.products,
                   [&](int row, float* x) { hidden_row(w, bias_of(row), m.eps, x, out, row); });
        else
            linear(w, source, rows, 0, w.input_tiles, s.products,
                   [&](int row, float* x) { hidden_row(w, w.bias, m.eps, x, out, row); });
    }
    return out;
}

INLINE Rows hidden_of_all(const Model& m, const Net& net, Rows in, int rows, const Scratch& s) {
    const float* bias = net.layers[0].bias;
    return hidden(m, net, in, rows, 0, net.layers[0].input_tiles, s, [bias](int) { return bias; });
}

template <class Finish>
INLINE void last(const Net& net, Rows in, int rows, float* products, Finish finish) {
    const Linear& w = net.layers[net.count - 1];
    linear(w, in, rows, 0, w.input_tiles, products, [&](int row, float* x) { finish(w, row, x); });
}

// Rows up to a multiple of 32 are multiplied too: they must hold numbers.
void clear(const Scratch& s, int rows) {
    for (int row = rows; row < round_up(rows, 32); ++row)
        for (int tile = 0; tile < s.state.tiles; ++tile) std::memset(s.state.at(row, tile), 0, 64);
}

// The policy's action from every state, for the standard normal draws `noise_of(row)`; `take(row, action)`.
template <class Noise, class Take>
void policy_actions(const Model& m, int rows, const Scratch& s, Noise noise_of, Take take) {
    const Rows h = hidden_of_all(m, m.policy, s.state, rows, s);
    const float half = 0.5f * (m.log_std_max - m.log_std_min);
    last(m.policy, h, rows, s.products, [&](const Linear& w, int row, float* x) {
        const float* noise = noise_of(row);
        float* action = s.action + int64_t(row) * m.action;
        for (int i = 0; i < m.action; ++i) {
            const float mean = x[i] + w.bias[i];
            const float raw = x[m.action + i] + w.bias[m.action + i];
            const float spread = noise[i] * std::exp(m.log_std_min + half * (std::tanh(raw) + 1.0f));
            if (m.clipped) {
                const float a = std::tanh(mean) + spread;
                action[i] = a > 1.0f ? 1.0f : a < -1.0f ? -1.0f : a;
            } else {
                action[i] = std::tanh(mean + spread);
            }
        }
        take(row, action);
    });
}

void next_state(const Model& m, Rows h, int rows, const Scratch& s) {
    last(m.dynamics, h, rows, s.products, [&](const Linear& w, int row, float* x) {
        latent_row(w, w.bias, m.eps, m.group, x, s.state, row);
    });
}

// What the first layers of dynamics and reward make of the starts alone: all samples of a start share it.
void first_layers(const Model& m, const float* z, int envs, const Scratch& s) {
    for (int env = 0; env < envs; ++env) to_rows(z + int64_t(env) * m.latent, m.latent, s.state, env, 0);
    float* target = s.starts;
    const Net* const nets[] = {&m.dynamics, &m.reward};
    for (const Net* net : nets) {
        const Linear& w = net->layers[0];
        linear(w, s.state, envs, 0, m.latent_tiles, s.products, [&](int env, float* x) {
            for (int i = 0; i < w.outputs_padded; i += 16)
                store(target + int64_t(env) * w.outputs_padded + i, load(x + i) + load(w.bias + i));
        });
        target += int64_t(envs) * w.outputs_padded;
    }
}

void roll(const Model& m, const RollJob& job, int64_t row0, int rows, char* workspace) {
    const Scratch s = carve(m, rows, workspace);
    const int64_t env0 = row0 / job.samples, envs = (row0 + rows - 1) / job.samples - env0 + 1;
    clear(s, int(envs));
    first_layers(m, job.z + env0 * m.latent, int(envs), s);
    clear(s, rows);
    const auto start_of = [&](int row) { return (row0 + row) / job.samples - env0; };
    const int latent = m.latent_tiles, all_tiles = m.latent_tiles + m.action_tiles;
    const int width_d = m.dynamics.layers[0].outputs_padded, width_r = m.reward.layers[0].outputs_padded;
    const float* const starts_r = s.starts + envs * width_d;
    float* const value = job.value + row0;
    float* const alive = job.alive + row0;
    for (int row = 0; row < rows; ++row) value[row] = 0.0f, alive[row] = 1.0f;
    if (job.noise)
        for (int row = 0; row < rows; ++row)
            to_rows(job.z + (row0 + row) / job.samples * m.latent, m.latent, s.state, row, 0);

    for (int64_t t = 0; t < job.horizon; ++t) {
        const auto step_of = [&](int row) { return ((row0 + row) * job.horizon + t) * m.action; };
        if (job.noise)
            policy_actions(
                m, rows, s, [&](int row) { return job.noise + step_of(row); },
                [&](int row, const float* action) { std::memcpy(job.actions + step_of(row), action, 4 * m.action); });
        for (int row = 0; row < rows; ++row) to_rows(job.actions + step_of(row), m.action, s.state, row, latent);

        const int from = t == 0 ? latent : 0, count = t == 0 ? m.action_tiles : all_tiles;
        const auto bias_r = [&](int row) {
            return t == 0 ? starts_r + start_of(row) * width_r : m.reward.layers[0].bias;
        };
        const auto bias_d = [&](int row) {
            return t == 0 ? s.starts + start_of(row) * width_d : m.dynamics.layers[0].bias;
        };
        Rows h = hidden(m, m.reward, s.state, rows, from, count, s, bias_r);
        last(m.reward, h, rows, s.products, [&](const Linear& w, int row, float* x) {
            value[row] += job.discounts[t] * alive[row] * decode(w, m.centres, x);
        });
        h = hidden(m, m.dynamics, s.state, rows, from, count, s, bias_d);
        next_state(m, h, rows, s);
        if (m.termination.count == 0) continue;  // nothing ends
        h = hidden_of_all(m, m.termination, s.state, rows, s);
        last(m.termination, h, rows, s.products, [&](const Linear& w, int row, float* x) {
            alive[row] *= x[0] + w.bias[0] <= 0.0f ? 1.0f : 0.0f;  // logit 0 is probability 0.5
        });
    }
    for (int row = 0; row < rows; ++row)
        for (int tile = 0; tile < latent; ++tile)
            std::memcpy(job.last + ((row0 + row) * latent + tile) * kTileCols, s.state.at(row, tile), 64);
}

void terminal(const Model& m, const TerminalJob& job, int64_t row0, int rows, char* workspace) {
    const Scratch s = carve(m, rows, workspace);
    clear(s, rows);
    const int latent = m.latent_tiles;
    for (int row = 0; row < rows; ++row) {
        for (int tile = 0; tile < latent; ++tile)
            std::memcpy(s.state.at(row, tile), job.last + ((row0 + row) * latent + tile) * kTileCols, 64);
        to_rows(nullptr, 0, s.state, row, latent);
    }
    policy_actions(
        m, rows, s, [&](int row) { return job.noise + (row0 + row) * m.action; },
        [&](int row, const float* action) { to_rows(action, m.action, s.state, row, latent); });
    for (int i = 0; i < 2; ++i) {
        const Net& q = m.q[job.heads[i]];
        const Rows h = hidden_of_all(m, q, s.state, rows, s);
        last(q, h, rows, s.products, [&](const Linear& w, int row, float* x) {
            const float one = decode(w, m.centres, x);
            if (i == 0)
                s.first[row] = one;
            else
                job.value[row0 + row] = 0.5f * (s.first[row] + one);
        });
    }
}

// One panel of 32 outputs of a matrix, or the whole vector.
void pack(const PackJob& job, int panel) {
    if (job.inputs == 0) {
        float* target = static_cast<float*>(job.target);
        for (int i = 0; i < job.outputs; ++i) target[job.at + i] = job.source[i];
        for (int i = job.at + job.outputs; i < job.outputs_padded; ++i) target[i] = job.fill;
        return;
    }
    uint16_t* target = static_cast<uint16_t*>(job.target);
    const int tiles = (job.inputs + 31) / 32;
    for (int half = 0; half < 2; ++half) {
        const int first = 32 * panel + 16 * half - job.at;  // row of the source
        for (int tile = 0; tile < tiles; ++tile) {
            uint16_t* out = target + (int64_t(panel) * job.input_tiles + job.tile + tile) * kPanel + half * kTile;
            const int inputs = job.inputs - 32 * tile < 32 ? job.inputs - 32 * tile : 32;
            const float* source = job.source + first * job.output_stride + 32 * tile * job.input_stride;
            const bool whole = first >= 0 && first + 16 <= job.outputs && inputs == 32;
            if (whole && job.input_stride == 1) {
                alignas(64) uint32_t pairs[16][16];
                for (int n = 0; n < 16; ++n) {
                    const float* p = source + n * job.output_stride;
                    store_bf16(reinterpret_cast<uint16_t*>(pairs[n]), load(p), load(p + 16));
                }
                uint32_t* columns = reinterpret_cast<uint32_t*>(out);
                for (int k = 0; k < 16; ++k)
                    for (int n = 0; n < 16; ++n) columns[16 * k + n] = pairs[n][k];
            } else if (whole && job.output_stride == 1) {
                for (int k = 0; k < 16; ++k) {
                    const UVec even = bits16(load(source + 2 * k * job.input_stride));
                    const UVec odd = bits16(load(source + (2 * k + 1) * job.input_stride));
                    *reinterpret_cast<UVecAnywhere*>(out + 32 * k) = even | (odd << 16);
                }
            } else {
                for (int n = 0; n < 16; ++n) {
                    if (first + n < 0 || first + n >= job.outputs) continue;  // zero from the start, or another part's
                    for (int k = 0; k < inputs; ++k)
                        out[32 * (k / 2) + 2 * n + k % 2] = to_bf16(source[n * job.output_stride + k * job.input_stride]);
                }
            }
        }
    }
}

void apply(int32_t function, float* x, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) {
        const Vec v = load(x + i);
        store(x + i, function == 0 ? exponential(v) : function == 1 ? mish(v) : softmax8(v));
    }
}

}  // namespace

namespace tdmpc {

#if defined(TDMPC_AMX)
extern const Backend kAmx = {roll, terminal, pack, apply, enter_tiles, leave_tiles};
#elif defined(TDMPC_EMULATION)
extern const Backend kEmulation = {roll, terminal, pack, apply, enter_tiles, leave_tiles};
#else
extern const Backend kAvx512 = {roll, terminal, pack, apply, enter_tiles, leave_tiles};
#endif

}  // namespace tdmpc
