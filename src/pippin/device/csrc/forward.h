// One forward pass over the next tokens of several sequences, each with its own adapter or none.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "adapter.h"
#include "cache.h"
#include "model.h"
#include "pool.h"

namespace pippin {

// Memory of whole cache lines that only grows.
template <class T>
class Buffer {
public:
    T* get(int64_t n) {
        if (n > size_) {
            memory_.reset(static_cast<T*>(::operator new(size_t(round_up(n * int64_t(sizeof(T)), 64) + 64), std::align_val_t(64))));
            size_ = n;
        }
        return memory_.get();
    }

private:
    struct Delete {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
    };
    std::unique_ptr<T, Delete> memory_;
    int64_t size_ = 0;
};

// What a forward pass spends its time on, as the calling thread sees it.
enum Phase { kMatrices, kAttention, kNorms, kHead, kPhases };

class Stopwatch {
public:
    void start() { last_ = Clock::now(); }
    void lap(Phase phase) {
        const Clock::time_point now = Clock::now();
        ns_[phase] += std::chrono::nanoseconds(now - last_).count(), last_ = now;
    }
    int64_t ns(Phase phase) const { return ns_[phase]; }

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point last_;
    int64_t ns_[kPhases] = {};
};

struct Segment {
    SequenceCache* cache;      // has room for the new tokens, which are its last ones
    const int32_t* tokens;     // the new tokens
    int64_t n, start;          // how many, and the position of the first
    const Adapter* adapter;    // or nullptr
    int64_t logits_from;       // logits are wanted after tokens logits_from .. n - 1
};

class Forward {
public:
    Forward(const Model& model, Pool& pool, const Kernels& kernels, bool exact, KVKind kv);

    KVShape kv_shape() const { return kv_; }
    int64_t page_bytes() const { return model_.config.n_layers * model_.config.n_kv_heads * kv_.tile_bytes(); }
    const Stopwatch& watch() const { return watch_; }
    // The logits that the segments ask for, [rows, vocabulary], in order; valid until the next call.
    const float* run(const std::vector<Segment>& segments);
    // One projection of n vectors: y [n, out] = W x [n, in].
    void project(int64_t layer, int which, const float* x, int64_t n, float* y);

private:
    struct Product {
        const Projection* w;
        int which;
        float* y;
        int64_t ldy;
    };
    // Rows next to each other with the same adapter.
    struct Adapted {
        const Adapter* adapter;
        int64_t first_row, n;
    };
    // Some inputs (`piece`) of the A of one product, for some rows.
    struct LowTask {
        const Half* a;
        int64_t product, piece, first, n;
    };
    // Queries [begin, end) of a segment, (token, head of the group), that attention handles side by side.
    struct Block {
        const Segment* segment;
        int64_t first_row, head, begin, end;
    };
    struct Piece {
        int64_t product, begin, end;
    };
    // Memory of one input of products: packed for them, and plain for the adapters.
    struct Input {
        Activations packed;
        Buffer<float> floats, scale;
        Buffer<int8_t> bytes;
        Buffer<int32_t> start;
    };

    void resize(Input& input, int64_t tokens, int64_t cols);
    void norm_and_pack(const float* x, const float* gain, float* normed, Input& input);
    void pack(const float* x, int64_t ld, Input& input);
    void pack_spans(const float* x, int64_t ld, Input& input, int64_t begin, int64_t end);
    template <class After>
    void multiply(int64_t layer, std::initializer_list<Product> products, bool together, const Input& input, const float* x, int64_t ldx,
                  const After& after);
    void plan_low_rank(int64_t layer, std::initializer_list<Product> products, int64_t cols);
    void low_rank_task(int64_t i, const float* x, int64_t ldx, int64_t cols);
    void expect(const Projection& w);
    void prepare_head(int64_t layer, int64_t row, int64_t head);
    void attend(int64_t layer);
    void add_result(const float* gain, const float* y, int64_t ldy);

    const Model& model_;
    Pool& pool_;
    const Kernels& kernels_;
    const bool exact_;
    const KVShape kv_;
    Stopwatch watch_;

    const std::vector<Segment>* segments_ = nullptr;
    std::vector<Adapted> adapted_;
    int64_t rows_ = 0;
    std::vector<const Segment*> segment_of_;  // of each row
    std::vector<int64_t> first_row_;          // of each segment
    int64_t ldx_, ldq_, ldk_, ldf_;           // widths with room for whole groups of rows
    Buffer<float> x_, normed_, q_, k_, v_, mixed_, y_, gate_, up_, angles_, last_, logits_;
    Input wide_, mixed_in_, ffn_in_, head_in_;
    Buffer<float> low_, low_parts_, scores_, queries_;
    std::vector<const uint8_t*> tiles_;
    std::vector<Piece> pieces_;
    std::vector<Block> blocks_;
    std::vector<int64_t> cuts_;
    std::vector<LowTask> low_tasks_;
    int64_t low_width_ = 0, low_pieces_ = 0;
    std::atomic<int64_t> low_left_{0};  // tasks that are not done; -1 once low_ is there
};

}  // namespace pippin
