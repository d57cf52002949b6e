// The networks' forward and backward passes over a block of rows, and the gradients by their weights.
//
// Products are of bfloat16, sums and everything between products float32; on the tape and between the products of the
// backward pass lies bfloat16. Compiled once for each way of multiplying in tiles.h.
#include "train.h"

#include <algorithm>

#include "rows.h"

namespace {

using namespace tdmpc;

// 16 bfloat16 as floats.
INLINE Vec load_bf16(const uint16_t* p) {
#ifdef __AVX512F__
    __m256i half;
    std::memcpy(&half, p, 32);
    return Vec(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)));
#else
    Vec v;
    for (int i = 0; i < 16; ++i) v[i] = from_bf16(p[i]);
    return v;
#endif
}

INLINE UVec load_halves(const uint16_t* p) {
#ifdef __AVX512F__
    __m256i half;
    std::memcpy(&half, p, 32);
    return UVec(_mm512_cvtepu16_epi32(half));
#else
    UVec v;
    for (int i = 0; i < 16; ++i) v[i] = p[i];
    return v;
#endif
}

INLINE Rows rows_at(char* memory, int tiles, int64_t row) {
    return {reinterpret_cast<uint16_t*>(memory) + row * tiles * kTileCols, tiles};
}

INLINE void clear_rows(Rows r, int from, int to) {
    for (int row = from; row < to; ++row)
        for (int tile = 0; tile < r.tiles; ++tile) std::memset(r.at(row, tile), 0, 64);
}

// The dropped positions of a block's rows in one step, asked for row by row in ascending order.
struct Dropped {
    const int64_t *at = nullptr, *end = nullptr;
    int64_t base = 0, width = 0;

    Dropped(const TrainNet& net, const TrainJob& job, int head, int64_t step, int64_t row) {
        width = net.layers[0].linear.outputs;
        base = ((head * job.steps + step) * job.rows + row) * width;
        end = job.dropped + job.dropped_count;
        at = std::lower_bound(job.dropped, end, base);
    }

    // Row 0 is the block's first.
    INLINE void take_out(int row, float* x) {
        const int64_t first = base + row * width;
        for (; at < end && *at < first + width; ++at) x[*at - first] = 0.0f;
    }
};

// A product's row in `x` to the layer's output, in place; `kept`: the row on the tape, `factor`: LayerNorm's.
INLINE void forward_row(const TrainNet& net, const TrainLayer& layer, bool taped, float scale, float* x, Rows kept, int row,
                        float* factor) {
    const Linear& w = layer.linear;
    const int width = w.outputs_padded;
    if (w.gain) {
        float mean;
        moments(w, w.bias, net.eps, x, mean, *factor);
        const float by = *factor;
        for (int i = 0; i < width; i += 32) {
            const Vec low = (load(x + i) - mean) * by, high = (load(x + i + 16) - mean) * by;
            if (taped) store_bf16(kept.at(row, i / 32), low, high);
            store(x + i, (low * load(w.gain + i) + load(w.shift + i)) * scale);
            store(x + i + 16, (high * load(w.gain + i + 16) + load(w.shift + i + 16)) * scale);
        }
    } else {
        for (int i = 0; i < width; i += 16) store(x + i, load(x + i) + load(w.bias + i));
    }
    if (layer.activation == kMish) {
        for (int i = 0; i < width; i += 16) store(x + i, mish(load(x + i)));
    } else if (layer.activation == kRelu) {
        for (int i = 0; i < width; i += 16) store(x + i, at_least(load(x + i), Vec{}));
        if (taped) store_row(kept, row, x, width);
    } else if (layer.activation == kSoftmax) {
        softmax_groups(x, w.outputs, width, net.group);
    }
}

// The gradient by a layer's output in `x` to that by its product, in place; zero beyond the true outputs. `sums`, if
// there: of the rows so far by bias, gain and shift. `out`: the layer's output, for a softmax.
INLINE void backward_row(const TrainNet& net, const TrainLayer& layer, float scale, const float* out, Rows kept, int row,
                         float factor, Dropped* dropped, float* x, float* sums) {
    const Linear& w = layer.linear;
    const int width = w.outputs_padded;
    if (layer.activation == kSoftmax) {
        for (int i = 0; i < w.outputs; i += net.group) {
            float dot = 0.0f;
            for (int j = 0; j < net.group; ++j) dot += x[i + j] * out[i + j];
            for (int j = 0; j < net.group; ++j) x[i + j] = out[i + j] * (x[i + j] - dot);
        }
    } else if (layer.activation == kRelu) {
        for (int i = 0; i < width; i += 16) {
            const Vec y = load_bf16(kept.at(row, i / 32) + i % 32);
            store(x + i, y > 0.0f ? load(x + i) : Vec{});
        }
    } else if (layer.activation == kMish) {
        for (int i = 0; i < width; i += 16) {
            const Vec n = (load_bf16(kept.at(row, i / 32) + i % 32) * load(w.gain + i) + load(w.shift + i)) * scale;
            store(x + i, load(x + i) * mish_slope(n) * scale);
        }
        if (dropped) dropped->take_out(row, x);
    }
    for (int i = w.outputs; i < width; ++i) x[i] = 0.0f;
    if (w.gain) {
        Vec first = {}, second = {};
        for (int i = 0; i < width; i += 16) {
            const Vec d = load(x + i), n = load_bf16(kept.at(row, i / 32) + i % 32);
            if (sums) {
                store(sums + width + i, load(sums + width + i) + d * n);
                store(sums + 2 * width + i, load(sums + 2 * width + i) + d);
            }
            const Vec by_norm = d * load(w.gain + i);
            first = first + by_norm;
            second = second + by_norm * n;
            store(x + i, by_norm);
        }
        const float mean = sum(first) / float(w.outputs), along = sum(second) / float(w.outputs);
        for (int i = 0; i < width; i += 16) {
            const Vec n = load_bf16(kept.at(row, i / 32) + i % 32);
            store(x + i, (load(x + i) - mean - n * along) * factor);
        }
        for (int i = w.outputs; i < width; ++i) x[i] = 0.0f;
    }
    if (sums)
        for (int i = 0; i < width; i += 16) store(sums + i, load(sums + i) + load(x + i));
}

// Rows in tiles, 32 at a time, laid out as the right side of a product over the rows: [column / 32][row / 32] tiles of
// row pairs; `columns_first`: as its left side, [column / 16][row / 32] tiles of 16 columns by 32 rows.
void lay_out(Rows in, int rows, uint16_t* target, int64_t row_tiles, int64_t row_tile, bool columns_first) {
    for (int row = 0; row < rows; row += 32, ++row_tile)
        for (int tile = 0; tile < in.tiles; ++tile)
            for (int half = 0; half < 2; ++half) {
                UVec pairs[16];
                for (int p = 0; p < 16; ++p) {
                    const uint16_t* even = in.at(row + 2 * p, tile) + 16 * half;
                    pairs[p] = load_halves(even) | (load_halves(even + kTileCols) << 16);
                }
                if (columns_first) transpose(pairs);
                const int64_t at = columns_first ? ((2 * tile + half) * row_tiles + row_tile) * kTile
                                                 : (tile * row_tiles + row_tile) * kPanel + half * kTile;
                for (int p = 0; p < 16; ++p) *reinterpret_cast<UVecAnywhere*>(target + at + 32 * p) = pairs[p];
            }
}

struct TrainScratch {
    float *products, *carry, *sums;
    uint16_t* gradient[2];
};

TrainScratch carve(const TrainNet& net, int rows, char* memory) {
    const int64_t widest = widest_layer(net), padded = round_up(rows, 32);
    const auto take = [&memory](int64_t bytes) {
        char* const here = memory;
        memory += round_up(bytes, 64);
        return here;
    };
    TrainScratch s;
    s.products = reinterpret_cast<float*>(take(kMostProducts * (widest + 16) * 4));
    s.gradient[0] = reinterpret_cast<uint16_t*>(take(padded * widest * 2));
    s.gradient[1] = reinterpret_cast<uint16_t*>(take(padded * widest * 2));
    s.carry = reinterpret_cast<float*>(take(padded * net.state * 4));
    s.sums = reinterpret_cast<float*>(take(3 * widest * net.count * 4));
    return s;
}

// The inputs of all steps onto the tape.
void read(const TrainNet& net, const TrainJob& job, int64_t row0, int rows) {
    const TapeLayout tape(net, job);
    const int padded = int(round_up(rows, 32));
    for (int64_t t = 0; t < job.steps; ++t) {
        const Rows in = rows_at(job.tape, net.state_tiles + net.extra_tiles, t * tape.step_rows + row0);
        for (int row = 0; row < rows; ++row) {
            if (t == 0) to_rows(job.state + (row0 + row) * net.state, net.state, in, row, 0);
            if (job.extra)
                to_rows(job.extra + (t * job.rows + row0 + row) * net.extra, net.extra, in, row, net.state_tiles);
        }
        clear_rows(in, rows, padded);
    }
}

void forward(const TrainNet& net, const TrainJob& job, int head, int64_t row0, int rows, char* workspace) {
    const TrainScratch s = carve(net, rows, workspace);
    const TapeLayout tape(net, job);
    const int padded = int(round_up(rows, 32));
    for (int64_t t = 0; t < job.steps; ++t) {
        const int64_t at = t * tape.step_rows + row0;
        for (int i = 0; i < net.count; ++i) {
            const TrainLayer& layer = tape.layer(head, i);
            const Linear& w = layer.linear;
            const bool last = i + 1 == net.count, again = last && t + 1 < job.steps;
            const Rows in = rows_at(job.tape + tape.inputs_at(head, i), w.input_tiles, at);
            const Rows kept = rows_at(job.tape + tape.kept_at(head, i), w.outputs_padded / 32, at);
            float* const factors = reinterpret_cast<float*>(job.tape + tape.factors_at(head, i)) + at;
            const int next_at = last ? 0 : i + 1;
            const Rows next = rows_at(job.tape + tape.inputs_at(head, next_at), tape.layer(head, next_at).linear.input_tiles,
                                      again ? at + tape.step_rows : at);
            const float scale = i == 0 ? job.keep_scale : 1.0f;
            Dropped dropped(net, job, head, t, row0);
            linear(w, in, rows, 0, w.input_tiles, s.products, [&](int row, float* x) {
                forward_row(net, layer, job.taped, scale, x, kept, row, factors + row);
                if (i == 0 && job.dropped_count) dropped.take_out(row, x);
                if (last)
                    std::memcpy(job.out + ((head * job.steps + t) * job.rows + row0 + row) * w.outputs, x, 4 * w.outputs);
                if (!last || again) store_row(next, row, x, w.outputs_padded);
            });
            if (!last) clear_rows(next, rows, padded);
        }
    }
}

// Gradients by the net's input for one step, from those by the first layer's product.
INLINE void by_input(const TrainNet& net, const TrainJob& job, const TapeLayout& tape, int head, int64_t t, int64_t row0,
                     int row, const float* x, const TrainScratch& s) {
    const float* extra = x + net.state_tiles * kTileCols;
    if (t > 0) std::memcpy(s.carry + int64_t(row) * net.state, x, 4 * net.state);
    if (net.heads > 1) {
        float* p = reinterpret_cast<float*>(job.memory + tape.by_input_at(head)) +
                   (t * job.rows + row0 + row) * (net.state + net.extra);
        std::memcpy(p, x, 4 * net.state);
        if (job.by_extra) std::memcpy(p + net.state, extra, 4 * net.extra);
        return;
    }
    if (t == 0 && job.by_state) std::memcpy(job.by_state + (row0 + row) * net.state, x, 4 * net.state);
    if (job.by_extra) std::memcpy(job.by_extra + (t * job.rows + row0 + row) * net.extra, extra, 4 * net.extra);
}

void backward(const TrainNet& net, const TrainJob& job, int head, int64_t row0, int rows, char* workspace) {
    const TrainScratch s = carve(net, rows, workspace);
    const TapeLayout tape(net, job);
    const int padded = int(round_up(rows, 32)), final = net.count - 1;
    const int64_t row_tiles = tape.all_rows / 32;
    float* sums[kMaxLayers] = {};
    if (job.gradients) {
        float* at = s.sums;
        for (int i = 0; i < net.count; at += 3 * tape.layer(head, i++).linear.outputs_padded) {
            sums[i] = at;
            std::memset(at, 0, 12 * tape.layer(head, i).linear.outputs_padded);
        }
    }
    for (int64_t t = job.steps - 1; t >= 0; --t) {
        const int64_t at = t * tape.step_rows + row0;
        Dropped dropped(net, job, head, t, row0);
        // From the gradient by layer i's output in `x` to that by its product, in tiles.
        const auto through = [&](int i, int row, float* x) {
            const TrainLayer& layer = tape.layer(head, i);
            const int tiles = layer.linear.outputs_padded / 32;
            const Rows kept = rows_at(job.tape + tape.kept_at(head, i), tiles, at);
            const float factor = reinterpret_cast<float*>(job.tape + tape.factors_at(head, i))[at + row];
            const float* out = job.out + ((head * job.steps + t) * job.rows + row0 + row) * layer.linear.outputs;
            backward_row(net, layer, i == 0 ? job.keep_scale : 1.0f, out, kept, row, factor,
                         i == 0 && job.dropped_count ? &dropped : nullptr, x, sums[i]);
            store_row({s.gradient[i % 2], tiles}, row, x, layer.linear.outputs_padded);
        };
        const Linear& top = tape.layer(head, final).linear;
        for (int row = 0; row < rows; ++row) {
            float* const x = s.products;
            std::memset(x, 0, 4 * top.outputs_padded);
            std::memcpy(x, job.by_out + ((head * job.steps + t) * job.rows + row0 + row) * top.outputs, 4 * top.outputs);
            if (t + 1 < job.steps)
                for (int j = 0; j < net.state; ++j) x[j] += s.carry[int64_t(row) * net.state + j];
            through(final, row, x);
        }
        for (int i = final; i >= 0; --i) {
            const TrainLayer& layer = tape.layer(head, i);
            const int tiles = layer.linear.outputs_padded / 32;
            const Rows by_product = {s.gradient[i % 2], tiles};
            clear_rows(by_product, rows, padded);
            if (job.gradients) {
                const Rows in = rows_at(job.tape + tape.inputs_at(head, i), layer.linear.input_tiles, at);
                lay_out(by_product, padded, reinterpret_cast<uint16_t*>(job.memory + tape.by_product_at(head, i)), row_tiles,
                        at / 32, !net.inputs_first);
                lay_out(in, padded, reinterpret_cast<uint16_t*>(job.memory + tape.by_inputs_at(head, i)), row_tiles,
                        at / 32, net.inputs_first);
            }
            if (i == 0 && t == 0 && !job.by_state && !job.by_extra) continue;
            Linear turned = {};
            turned.weight = layer.turned;
            turned.input_tiles = tiles;
            turned.last_pairs = (layer.linear.outputs - 32 * (tiles - 1) + 1) / 2;
            turned.outputs_padded = layer.linear.input_tiles * kTileCols;
            if (i == 0 && !job.by_extra) turned.outputs_padded = net.state_tiles * kTileCols;
            linear(turned, by_product, rows, 0, tiles, s.products, [&](int row, float* x) {
                if (i > 0)
                    through(i - 1, row, x);
                else
                    by_input(net, job, tape, head, t, row0, row, x, s);
            });
        }
    }
    for (int i = 0; job.gradients && i < net.count; ++i) {
        const int64_t bytes = 12 * tape.layer(head, i).linear.outputs_padded;
        std::memcpy(job.memory + tape.sums_at(head, i) + row0 / job.block * bytes, sums[i], bytes);
    }
}

// The heads' gradients by the input they share, added up.
void add_heads(const TrainNet& net, const TrainJob& job, int64_t row0, int rows) {
    const TapeLayout tape(net, job);
    const int64_t width = net.state + net.extra;
    for (int64_t t = 0; t < job.steps; ++t)
        for (int64_t row = t * job.rows + row0; row < t * job.rows + row0 + rows; ++row) {
            const auto of = [&](int head) {
                return reinterpret_cast<float*>(job.memory + tape.by_input_at(head)) + row * width;
            };
            float* const total = of(0);
            const int64_t wanted = job.by_extra ? width : net.state;
            for (int head = 1; head < net.heads; ++head) {
                const float* more = of(head);
                for (int64_t j = 0; j < wanted; ++j) total[j] += more[j];
            }
            if (t == 0 && job.by_state) std::memcpy(job.by_state + row * net.state, total, 4 * net.state);
            if (job.by_extra) std::memcpy(job.by_extra + row * net.extra, total + net.state, 4 * net.extra);
        }
}

// Where the 32 inputs of a tile begin among the true ones, and how many of them there are.
struct Piece {
    int first, count;
};

INLINE Piece piece_of(const TrainNet& net, int layer, int inputs, int tile) {
    const int begin = layer == 0 && tile >= net.state_tiles ? net.state_tiles : 0;
    const int size = layer > 0 ? inputs : begin ? net.extra : net.state;
    const int at = 32 * (tile - begin), left = size - at;
    return {(begin ? net.state : 0) + at, left < 0 ? 0 : left < 32 ? left : 32};
}

// Rows [strip · kStrip, …) of the gradient by a layer's weight; the first strip also sums up those by the vectors.
void by_weight(const TrainNet& net, const TrainJob& job, int head, int i, int strip, char* workspace) {
    const TapeLayout tape(net, job);
    const Linear& w = tape.layer(head, i).linear;
    const Gradient& wanted = job.gradients[head * net.count + i];
    if (strip == 0) {
        const float* sums = reinterpret_cast<const float*>(job.memory + tape.sums_at(head, i));
        float* const targets[3] = {wanted.bias, wanted.gain, wanted.shift};
        for (int v = 0; v < 3; ++v)
            for (int j = 0; targets[v] && j < w.outputs; ++j) {
                float total = 0.0f;
                for (int64_t b = 0; b < tape.blocks; ++b) total += sums[(3 * b + v) * w.outputs_padded + j];
                targets[v][j] = total;
            }
    }
    const int inputs = i == 0 ? net.state + net.extra : tape.layer(head, i - 1).linear.outputs;
    const int64_t row_tiles = tape.all_rows / 32;
    const uint16_t* by_product = reinterpret_cast<const uint16_t*>(job.memory + tape.by_product_at(head, i));
    const uint16_t* by_inputs = reinterpret_cast<const uint16_t*>(job.memory + tape.by_inputs_at(head, i));
    const uint16_t* left = net.inputs_first ? by_inputs : by_product;
    const uint16_t* right = net.inputs_first ? by_product : by_inputs;
    const int left_tiles = net.inputs_first ? w.input_tiles : w.outputs_padded / 32;
    const int right_tiles = net.inputs_first ? w.outputs_padded / 32 : w.input_tiles;
    float* const products = reinterpret_cast<float*>(workspace);
    constexpr int kWidth = 32 + 16;
    for (int panel = 0; panel < right_tiles; ++panel)
        for (int tile = strip * kStrip / 32; tile < (strip + 1) * kStrip / 32 && tile < left_tiles; ++tile) {
            multiply<2>(left + 2 * tile * row_tiles * kTile, row_tiles * kTile, right + panel * row_tiles * kPanel,
                        int(row_tiles), kTileCols / 2, products, kWidth);
            const Piece in = piece_of(net, i, inputs, net.inputs_first ? tile : panel);
            const int first = 32 * (net.inputs_first ? panel : tile), left_over = w.outputs - first;
            const Piece out = {first, left_over < 32 ? left_over : 32};
            const Piece down = net.inputs_first ? in : out, across = net.inputs_first ? out : in;
            const int64_t stride = net.inputs_first ? w.outputs : inputs;
            for (int r = 0; r < down.count && across.count > 0; ++r)
                std::memcpy(wanted.weight + (down.first + r) * stride + across.first, products + r * kWidth, 4 * across.count);
        }
}

}  // namespace

namespace tdmpc {

#if defined(TDMPC_AMX)
extern const TrainBackend kTrainAmx = {read, forward, backward, by_weight, add_heads, enter_tiles, leave_tiles};
#elif defined(TDMPC_EMULATION)
extern const TrainBackend kTrainEmulation = {read, forward, backward, by_weight, add_heads, enter_tiles, leave_tiles};
#else
extern const TrainBackend kTrainAvx512 = {read, forward, backward, by_weight, add_heads, enter_tiles, leave_tiles};
#endif

}  // namespace tdmpc
