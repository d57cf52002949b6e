// What Python calls: which ways there are on this processor, and the work handed out to threads.
//
// Compiled for any x86-64, as all that runs before a processor was asked what it can do must be.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "kernels.h"
#include "learn.h"
#include "train.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace tdmpc;

enum { kUseAmx = 0, kUseAvx512 = 1, kUseEmulation = 2 };

const Backend& backend(int32_t which) {
    return which == kUseAmx ? kAmx : which == kUseAvx512 ? kAvx512 : kEmulation;
}

const TrainBackend& train_backend(int32_t which) {
    return which == kUseAmx ? kTrainAmx : which == kUseAvx512 ? kTrainAvx512 : kTrainEmulation;
}

const LearnBackend& learn_backend(int32_t which) { return which == kUseEmulation ? kLearnPlain : kLearnAvx512; }

uint64_t enabled_state() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;  // OSXSAVE
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

bool has_avx512() {
    uint32_t a, b, c, d;
    if ((enabled_state() & 0xe6) != 0xe6) return false;  // the system keeps vector and mask registers
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const uint32_t needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
    if ((b & needed) != needed) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));  // BF16
}

bool has_amx() {
    uint32_t a, b, c, d;
    if ((enabled_state() & 0x60000) != 0x60000) return false;  // tile configuration and data
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 22)) && (d & (1u << 24));  // BF16, TILE
}

// Linux gives a process the tile registers only when it asks.
bool permit_tiles() {
    constexpr long kRequest = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

// `GOMP_parallel` of the OpenMP library that torch's own threads are from: other threads beside those would wait for
// processors on which those wait for the next piece of torch's work, which they do busily.
using Parallel = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);
std::atomic<Parallel> torchs_threads{nullptr};

// Calls `work(item, thread)` for all items below `count` in `threads` threads, this one among them.
template <class Backend, class Work>
void share(const Backend& b, int64_t count, int32_t threads, Work work) {
    std::atomic<int64_t> next{0};
    std::atomic<int32_t> numbers{0};
    auto run = [&]() {
        const int32_t thread = numbers++;
        if (thread >= threads) return;
        b.enter();
        for (int64_t item = next++; item < count; item = next++) work(item, thread);
        b.leave();
    };
    const Parallel parallel = torchs_threads;
    if (threads > 1 && count > 1 && parallel != nullptr) {
        parallel([](void* data) { (*static_cast<decltype(run)*>(data))(); }, &run, unsigned(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    for (int i = 1; i < threads && i < count; ++i) {
        try {
            others.emplace_back(run);
        } catch (...) {
            break;  // no more threads to be had: those there are do all of it
        }
    }
    run();
    for (std::thread& t : others) t.join();
}

struct Blocks {
    int64_t rows, size, count;
};

// Equal blocks of whole tiles, as many as keep all threads busy.
Blocks blocks(int64_t rows, int64_t most, int32_t threads) {
    const int64_t each = threads * ((rows + threads * most - 1) / (threads * most));
    const int64_t size = round_up((rows + each - 1) / each, kTileRows);
    return {rows, size, (rows + size - 1) / size};
}

template <class Part>
void by_blocks(const Model& m, int32_t which, int64_t rows, int64_t most, int32_t threads, char* workspace, Part part) {
    const Blocks b = blocks(rows, most, threads);
    const int64_t bytes = round_up(workspace_bytes(m, most), 4096);
    share(backend(which), b.count, threads, [&](int64_t item, int thread) {
        const int64_t row = item * b.size;
        const int64_t here = rows - row < b.size ? rows - row : b.size;
        part(row, int(here), workspace + thread * bytes);
    });
}

}  // namespace

EXPORT void tdmpc_use_threads(Parallel parallel) { torchs_threads = parallel; }

EXPORT int32_t tdmpc_abi() { return TDMPC_ABI; }

// Bits: 1 AMX, 2 AVX-512 with bfloat16, 4 emulation; 8 when the processor has AMX, but the system does not give it.
EXPORT int32_t tdmpc_backends() {
    int32_t found = 1 << kUseEmulation;
    if (!has_avx512()) return found;
    found |= 1 << kUseAvx512;
    if (has_amx()) found |= permit_tiles() ? 1 << kUseAmx : 8;
    return found;
}

EXPORT int64_t tdmpc_workspace(const Model* m, int64_t block, int32_t threads) {
    return round_up(workspace_bytes(*m, block), 4096) * threads;
}

EXPORT void tdmpc_roll(const Model* m, const RollJob* job, int32_t which, int64_t block, int32_t threads, char* workspace) {
    by_blocks(*m, which, job->envs * job->samples, block, threads, workspace,
              [&](int64_t row, int rows, char* memory) { backend(which).roll(*m, *job, row, rows, memory); });
}

EXPORT void tdmpc_terminal(const Model* m, const TerminalJob* job, int32_t which, int64_t block, int32_t threads,
                           char* workspace) {
    by_blocks(*m, which, job->rows, block, threads, workspace,
              [&](int64_t row, int rows, char* memory) { backend(which).terminal(*m, *job, row, rows, memory); });
}

EXPORT void tdmpc_pack(const PackJob* jobs, int64_t count, int32_t which, int32_t threads) {
    std::vector<std::pair<int64_t, int>> parts;
    for (int64_t i = 0; i < count; ++i) {
        if (jobs[i].inputs == 0) {
            parts.emplace_back(i, 0);
            continue;
        }
        for (int p = jobs[i].at / 32; p * 32 < jobs[i].at + jobs[i].outputs; ++p) parts.emplace_back(i, p);
    }
    share(backend(which), int64_t(parts.size()), threads,
          [&](int64_t item, int) { backend(which).pack(jobs[parts[item].first], parts[item].second); });
}

// In place: 0 exponential, 1 Mish, 2 softmax of groups of eight.
EXPORT void tdmpc_apply(int32_t function, float* x, int64_t count, int32_t which) { backend(which).apply(function, x, count); }

EXPORT int64_t tdmpc_tape_bytes(const TrainNet* net, const TrainJob* job) { return TapeLayout(*net, *job).tape_bytes(); }

EXPORT int64_t tdmpc_memory_bytes(const TrainNet* net, const TrainJob* job) { return TapeLayout(*net, *job).memory_bytes(); }

EXPORT int64_t tdmpc_train_workspace(const TrainNet* net, int64_t block, int32_t threads) {
    return round_up(train_workspace_bytes(*net, block), 4096) * threads;
}

namespace {

// `work(head, row, rows, workspace)` for all blocks of rows of all heads.
template <class Work>
void by_heads(const TrainBackend& b, const TrainNet& net, const TrainJob& job, int32_t heads, int32_t threads, char* workspace,
              Work work) {
    const int64_t count = (job.rows + job.block - 1) / job.block;
    const int64_t bytes = round_up(train_workspace_bytes(net, job.block), 4096);
    share(b, heads * count, threads, [&](int64_t item, int thread) {
        const int64_t row = item % count * job.block;
        const int64_t left = job.rows - row;
        work(int(item / count), row, int(left < job.block ? left : job.block), workspace + thread * bytes);
    });
}

}  // namespace

EXPORT void tdmpc_forward(const TrainNet* net, const TrainJob* job, int32_t which, int32_t threads, char* workspace) {
    const TrainBackend& b = train_backend(which);
    by_heads(b, *net, *job, 1, threads, workspace, [&](int, int64_t row, int rows, char*) { b.read(*net, *job, row, rows); });
    by_heads(b, *net, *job, net->heads, threads, workspace, [&](int head, int64_t row, int rows, char* memory) {
        b.forward(*net, *job, head, row, rows, memory);
    });
}

EXPORT void tdmpc_backward(const TrainNet* net, const TrainJob* job, int32_t which, int32_t threads, char* workspace) {
    const TrainBackend& b = train_backend(which);
    by_heads(b, *net, *job, net->heads, threads, workspace, [&](int head, int64_t row, int rows, char* memory) {
        b.backward(*net, *job, head, row, rows, memory);
    });
    if (net->heads > 1 && (job->by_state || job->by_extra))
        by_heads(b, *net, *job, 1, threads, workspace,
                 [&](int, int64_t row, int rows, char*) { b.add_heads(*net, *job, row, rows); });
    if (!job->gradients) return;
    struct Part {
        int head, layer, strip;
    };
    std::vector<Part> parts;
    for (int head = 0; head < net->heads; ++head)
        for (int i = 0; i < net->count; ++i) {
            const Linear& w = net->layers[head * net->count + i].linear;
            const int down = net->inputs_first ? 32 * w.input_tiles : w.outputs_padded;
            for (int strip = 0; strip * kStrip < down; ++strip) parts.push_back({head, i, strip});
        }
    const int64_t bytes = round_up(train_workspace_bytes(*net, job->block), 4096);
    share(b, int64_t(parts.size()), threads, [&](int64_t item, int thread) {
        const Part& p = parts[item];
        b.by_weight(*net, *job, p.head, p.layer, p.strip, workspace + thread * bytes);
    });
}

namespace {

// One of the functions that take rows, for pieces of all of them.
template <class Job>
void by_rows(const Job& job, int32_t which, int32_t threads, void (*LearnBackend::*function)(const Job&, int64_t, int64_t)) {
    const LearnBackend& b = learn_backend(which);
    share(b, (job.rows + kLossRows - 1) / kLossRows, threads, [&](int64_t item, int) {
        const int64_t row = item * kLossRows;
        (b.*function)(job, row, job.rows - row < kLossRows ? job.rows - row : kLossRows);
    });
}

}  // namespace

EXPORT void tdmpc_two_hot(const TwoHotJob* job, int32_t which, int32_t threads) {
    by_rows(*job, which, threads, &LearnBackend::two_hot);
}

EXPORT void tdmpc_two_hot_back(const TwoHotJob* job, int32_t which, int32_t threads) {
    by_rows(*job, which, threads, &LearnBackend::two_hot_back);
}

EXPORT void tdmpc_decode(const DecodeJob* job, int32_t which, int32_t threads) {
    by_rows(*job, which, threads, &LearnBackend::decode);
}

EXPORT void tdmpc_decode_back(const DecodeJob* job, int32_t which, int32_t threads) {
    by_rows(*job, which, threads, &LearnBackend::decode_back);
}

// Norms first, over chunks that are the same for any number of threads; then the step on clipped gradients.
EXPORT void tdmpc_adam(const AdamJob* job, int32_t which, int32_t threads) {
    const LearnBackend& b = learn_backend(which);
    struct Part {
        const AdamTensor* tensor;
        int64_t from, count;
        double squares;
    };
    std::vector<Part> parts;
    for (int64_t i = 0; i < job->count; ++i) {
        const int64_t count = job->tensors[i].count;
        for (int64_t from = 0; from < count; from += kChunk)
            parts.push_back({job->tensors + i, from, count - from < kChunk ? count - from : kChunk, 0.0});
    }
    share(b, int64_t(parts.size()), threads,
          [&](int64_t item, int) { parts[item].squares = b.squares(parts[item].tensor->gradient + parts[item].from, parts[item].count); });
    std::vector<double> sums(job->parts, 0.0);
    double all = 0.0;
    for (const Part& p : parts) {
        sums[p.tensor->part] += p.squares;
        all += p.squares;
    }
    for (int32_t i = 0; i < job->parts; ++i) job->norms[i] = float(std::sqrt(sums[i]));
    const float norm = job->norms[job->parts] = float(std::sqrt(all));
    const float scale = job->max_norm / (norm + 1e-6f);
    share(b, int64_t(parts.size()), threads, [&](int64_t item, int) {
        const Part& p = parts[item];
        b.adam(*job, *p.tensor, p.from, p.count, scale > 1.0f ? 1.0f : scale);
    });
}
