// Rows of activations in tiles, and one Linear over them.
//
// A row's result does not depend on its block or its neighbours, so any number of threads gives the same numbers.
#pragma once

#include "kernels.h"
#include "tiles.h"
#include "vec.h"

namespace {

using namespace tdmpc;

// Rows in tiles. `tiles`: of one row.
struct Rows {
    uint16_t* data;
    int tiles;
    uint16_t* at(int row, int tile) const {
        return data + (int64_t(row / kTileRows) * tiles + tile) * kTile + (row % kTileRows) * kTileCols;
    }
};

// One Linear over rows in tiles [from, from + count) of the inputs; `finish(row, products)` for each row.
//
// Large weights are gone through once for 64 rows: they come from further away than the products' sums.
template <class Finish>
INLINE void linear(const Linear& w, Rows in, int rows, int from, int count, float* products, Finish finish) {
    const int64_t width = w.outputs_padded + 16;  // a power of two would fall into few sets of the cache
    const int64_t next = int64_t(in.tiles) * kTile;
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    const int group = w.outputs_padded * count > 4096 ? kMostProducts / kTileRows : 2;
    const int pairs = from + count == w.input_tiles ? w.last_pairs : kTileCols / 2;
    for (int tile = 0; tile < tiles; tile += group) {
        const int here = tiles - tile < group ? tiles - tile : group;
        const uint16_t* a = in.data + tile * next + from * kTile;
        for (int panel = 0; panel < w.outputs_padded / 32; ++panel) {
            const uint16_t* b = w.weight + (int64_t(panel) * w.input_tiles + from) * kPanel;
            float* p = products + 32 * panel;
            for (int i = 0; i < here; i += 2) {
                if (i + 1 < here)
                    multiply<2>(a + i * next, next, b, count, pairs, p + i * kTileRows * width, width);
                else
                    multiply<1>(a + i * next, next, b, count, pairs, p + i * kTileRows * width, width);
            }
        }
        const int last = rows < (tile + here) * kTileRows ? rows : (tile + here) * kTileRows;
        for (int row = tile * kTileRows; row < last; ++row) finish(row, products + (row - tile * kTileRows) * width);
    }
}

// x + bias in place; mean and 1 / standard deviation of the first `outputs` entries.
INLINE void moments(const Linear& w, const float* bias, float eps, float* x, float& mean, float& scale) {
    Vec total = {};
    for (int i = 0; i < w.outputs_padded; i += 16) {
        const Vec v = load(x + i) + load(bias + i);
        store(x + i, v);
        total = total + v;
    }
    mean = sum(total) / float(w.outputs);
    Vec squares = {};
    for (int i = 0; i < w.outputs; i += 16) {
        Vec d = load(x + i) - mean;
        if (i + 16 > w.outputs) d = lanes_below(w.outputs - i, d, 0.0f);
        squares = squares + d * d;
    }
    scale = 1.0f / std::sqrt(sum(squares) / float(w.outputs) + eps);
}

// Softmax over groups of neighbouring entries, in place.
INLINE void softmax_groups(float* x, int outputs, int padded, int group) {
    if (group == 8) {
        for (int i = 0; i < padded; i += 16) store(x + i, softmax8(load(x + i)));
        return;
    }
    for (int i = 0; i < outputs; i += group) {
        float most = x[i];
        for (int j = 1; j < group; ++j) most = x[i + j] > most ? x[i + j] : most;
        for (int j = 0; j < group; ++j) x[i + j] -= most;
    }
    for (int i = 0; i < padded; i += 16) store(x + i, exponential(load(x + i)));
    for (int i = 0; i < outputs; i += group) {
        float total = 0.0f;
        for (int j = 0; j < group; ++j) total += x[i + j];
        for (int j = 0; j < group; ++j) x[i + j] /= total;
    }
}

INLINE void store_row(Rows out, int row, const float* x, int width) {
    for (int i = 0; i < width; i += 32) store_bf16(out.at(row, i / 32), load(x + i), load(x + i + 16));
}

INLINE void to_rows(const float* x, int n, Rows out, int row, int tile) {
    for (int i = 0; i < n; i += 32, ++tile) {
        uint16_t* p = out.at(row, tile);
        for (int j = 0; j < 32; ++j) p[j] = i + j < n ? to_bf16(x[i + j]) : 0;
    }
}

}  // namespace
