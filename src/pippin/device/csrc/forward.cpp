#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

namespace pippin {
namespace {

constexpr int64_t kLowPiece = 512;    // inputs of A that one chunk takes
constexpr int64_t kHeadRows = 512;    // rows of the head that one chunk takes
constexpr int64_t kPackValues = 4096; // values that one chunk packs at least
constexpr int64_t kPieceGroups = kSpan / kGroupRows;  // pieces of a product are made of whole spans of the next one's input

// Groups of rows in the first piece of each thread.
int64_t first_piece(int64_t groups, int threads, int64_t unit) {
    return threads == 1 ? groups : std::max(unit, round_up(groups * 3 / (4 * threads), unit));
}

// Where to cut `groups` row groups for `threads`: a long piece for each first, which memory likes, ever shorter ones
// last, so that all end together (after guided self-scheduling, Polychronopoulos and Kuck 1987). Multiples of `unit`,
// from 0 to groups.
void cut(int64_t groups, int threads, int64_t unit, std::vector<int64_t>& cuts) {
    cuts.assign(1, 0);
    while (cuts.back() < groups) {
        const int64_t pieces = int64_t(cuts.size()) - 1, left = groups - cuts.back();
        const int64_t piece = pieces < threads ? first_piece(groups, threads, unit) : std::max(unit, round_up(left / (2 * threads), unit));
        cuts.push_back(std::min(groups, cuts.back() + piece));
    }
}

}  // namespace

Forward::Forward(const Model& model, Pool& pool, const Kernels& kernels, bool exact, KVKind kv)
    : model_(model),
      pool_(pool),
      kernels_(kernels),
      exact_(exact),
      kv_{kv, model.config.d_head, int(round_up(model.config.d_head, 16))},
      ldx_(round_up(model.config.d_model, 16)),
      ldq_(round_up(model.q_width(), 16)),
      ldk_(round_up(model.kv_width(), 16)),
      ldf_(round_up(model.config.d_ff, 16)) {}

void Forward::resize(Input& input, int64_t tokens, int64_t cols) {
    Activations& packed = input.packed;
    packed.tokens = tokens, packed.cols = cols, packed.padded = round_up(cols, kSpan), packed.exact = exact_;
    const int64_t n = tokens * packed.padded;
    if (exact_) {
        packed.floats = input.floats.get(n);
    } else {
        packed.bytes = input.bytes.get(n);
        packed.scale = input.scale.get(n / kSpan);
        packed.start = input.start.get(n / kSpan);
    }
}

// Spans [begin, end) of all rows, in this thread.
void Forward::pack_spans(const float* x, int64_t ld, Input& input, int64_t begin, int64_t end) {
    for (int64_t first = 0; first < input.packed.tokens; first += kernels_.tile)
        kernels_.pack(input.packed, x, ld, first, int(std::min<int64_t>(kernels_.tile, input.packed.tokens - first)), begin, end);
}

void Forward::pack(const float* x, int64_t ld, Input& input) {
    const int64_t spans = input.packed.padded / kSpan, each = std::max<int64_t>(1, kPackValues / (kSpan * input.packed.tokens));
    pool_.run((spans + each - 1) / each, [&](int64_t i, int) { pack_spans(x, ld, input, i * each, std::min(spans, (i + 1) * each)); });
}

void Forward::norm_and_pack(const float* x, const float* gain, float* normed, Input& input) {
    const int64_t d = model_.config.d_model, each = std::max<int64_t>(1, kPackValues / d);
    resize(input, rows_, d);
    if (gain != nullptr) {
        pool_.run((rows_ + each - 1) / each, [&](int64_t i, int) {
            for (int64_t row = i * each; row < std::min(rows_, (i + 1) * each); ++row)
                kernels_.rms_norm(x + row * ldx_, gain, float(model_.config.norm_eps), d, normed + row * ldx_);
        });
    }
    pack(gain != nullptr ? normed : x, ldx_, input);
}

// The tasks whose results add up to low_ [product][row][padded rank] = A x of every row with an adapter.
void Forward::plan_low_rank(int64_t layer, std::initializer_list<Product> products, int64_t cols) {
    low_tasks_.clear(), low_width_ = 0;
    for (const Adapted& run : adapted_) low_width_ = std::max(low_width_, round_up(run.adapter->rank, 16));
    low_pieces_ = (cols + kLowPiece - 1) / kLowPiece;
    int64_t number = 0;
    for (const Product& product : products) {
        for (const Adapted& run : adapted_) {
            const LowRank& part = run.adapter->part(layer, product.which);
            if (part.a.groups == 0) continue;
            for (int64_t first = 0; first < run.n; first += 32)
                for (int64_t piece = 0; piece < low_pieces_; ++piece)
                    low_tasks_.push_back({&part.a, number, piece, run.first_row + first, std::min<int64_t>(32, run.n - first)});
        }
        ++number;
    }
    low_.get(number * rows_ * low_width_);
    low_parts_.get(number * low_pieces_ * rows_ * low_width_);
    low_left_.store(int64_t(low_tasks_.size()), std::memory_order_relaxed);
}

// One task; whoever does the last one adds the pieces up.
void Forward::low_rank_task(int64_t i, const float* x, int64_t ldx, int64_t cols) {
    const int64_t block = rows_ * low_width_;
    float *low = low_.get(0), *parts = low_parts_.get(0);
    const LowTask& task = low_tasks_[size_t(i)];
    Half piece = *task.a;
    piece.values += task.piece * kLowPiece * kGroupRows;
    piece.cols = std::min(kLowPiece, cols - task.piece * kLowPiece);
    float* to = parts + (task.product * low_pieces_ + task.piece) * block + task.first * low_width_;
    kernels_.matmul_half(piece, 0, piece.groups, x + task.first * ldx + task.piece * kLowPiece, ldx, int(task.n), 1.0f, false, to, low_width_);
    if (low_left_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    for (const LowTask& each : low_tasks_) {
        if (each.piece > 0) continue;
        float* sum = low + each.product * block + each.first * low_width_;
        const float* from = parts + each.product * low_pieces_ * block + each.first * low_width_;
        std::copy(from, from + each.n * low_width_, sum);
        for (int64_t p = 1; p < low_pieces_; ++p) kernels_.add(sum, from + p * block, each.n * low_width_);
    }
    low_left_.store(-1, std::memory_order_release);
}

// y = W x + bias + adapter for each product. The groups of rows are shared out among the threads; `after(product, begin,
// end)` follows on each finished range of rows. `together`: a range is that of all products, which have equal shapes.
template <class After>
void Forward::multiply(int64_t layer, std::initializer_list<Product> products, bool together, const Input& input, const float* x,
                       int64_t ldx, const After& after) {
    const Activations& packed = input.packed;
    watch_.lap(kNorms);
    low_tasks_.clear();
    if (!adapted_.empty()) plan_low_rank(layer, products, packed.cols);
    const int64_t n_low = int64_t(low_tasks_.size());
    const Product* list = products.begin();
    const int64_t n = int64_t(products.size());
    auto part = [&](int64_t p, int64_t begin, int64_t end) {
        const Product& product = list[p];
        kernels_.matmul(*product.w, begin, end, packed, product.y, product.ldy);
        const int64_t first = begin * kGroupRows, count = (end - begin) * kGroupRows;
        if (!product.w->bias.empty())
            for (int64_t row = 0; row < packed.tokens; ++row) kernels_.add(product.y + row * product.ldy + first, product.w->bias.data() + first, count);
        if (n_low == 0) return;
        // The tasks of A were handed out before: at most another thread's last one is still to wait for.
        while (low_left_.load(std::memory_order_acquire) >= 0) std::this_thread::yield();
        for (const Adapted& run : adapted_) {
            const LowRank& low = run.adapter->part(layer, product.which);
            if (low.b.groups == 0) continue;
            kernels_.matmul_half(low.b, begin, end, low_.get(0) + (p * rows_ + run.first_row) * low_width_, low_width_, int(run.n),
                                 run.adapter->scale, true, product.y + run.first_row * product.ldy, product.ldy);
        }
    };
    // Pieces of the first product, then of the second ...; of all at once if they go together.
    pieces_.clear();
    for (int64_t p = 0; p < (together ? 1 : n); ++p) {
        cut(list[p].w->groups, pool_.threads(), kPieceGroups, cuts_);
        for (size_t i = 1; i < cuts_.size(); ++i) pieces_.push_back({p, cuts_[i - 1], cuts_[i]});
    }
    // The longest first, whichever product they are of.
    std::stable_sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.end - a.begin > b.end - b.begin; });
    pool_.run(n_low + int64_t(pieces_.size()), [&](int64_t i, int) {
        if (i < n_low) return low_rank_task(i, x, ldx, packed.cols);
        const Piece& piece = pieces_[size_t(i - n_low)];
        for (int64_t p = piece.product; p < (together ? n : piece.product + 1); ++p) part(p, piece.begin, piece.end);
        after(piece.product, piece.begin * kGroupRows, piece.end * kGroupRows);
    });
    watch_.lap(kMatrices);
}

void Forward::expect(const Projection& w) {
    pool_.expect(w.codes, first_piece(w.groups, pool_.threads(), kPieceGroups) * w.blocks * kBlockBytes);
}

// Of one row, the queries of a key/value head and its key: QK norm, rotation and scale; key and value go into the cache.
void Forward::prepare_head(int64_t layer, int64_t row, int64_t head) {
    const pippin_config& c = model_.config;
    const Layer& weights = model_.layers[size_t(layer)];
    const int64_t group = c.n_heads / c.n_kv_heads;
    float *q = q_.get(0) + row * ldq_ + head * group * c.d_head, *k = k_.get(0) + row * ldk_ + head * c.d_head;
    const float *cos = angles_.get(0) + row * c.d_head, *sin = cos + c.d_head / 2;
    auto finish = [&](float* x, int64_t heads, const std::vector<float>& gain) {
        const bool norm = QKNorm(c.qk_norm) == QKNorm::head;
        for (float* at = x; at < x + heads * c.d_head; at += c.d_head) {
            if (norm && !c.rope_before_norm) kernels_.rms_norm(at, gain.data(), float(c.norm_eps), c.d_head, at);
            kernels_.rotate(at, cos, sin, c.d_head / 2);
            if (norm && c.rope_before_norm) kernels_.rms_norm(at, gain.data(), float(c.norm_eps), c.d_head, at);
        }
    };
    finish(q, group, weights.q_norm);
    finish(k, 1, weights.k_norm);
    const float by = 1 / std::sqrt(float(c.d_head));
    for (int64_t i = 0; i < group * c.d_head; ++i) q[i] *= by;
    const Segment& segment = *segment_of_[size_t(row)];
    const int64_t position = segment.start + row - first_row_[size_t(&segment - segments_->data())];
    kernels_.store(kv_, k, v_.get(0) + row * ldk_ + head * c.d_head, int(position % kPageTokens),
                   segment.cache->page(position / kPageTokens) + (layer * c.n_kv_heads + head) * kv_.tile_bytes());
}

void Forward::attend(int64_t layer) {
    const pippin_config& c = model_.config;
    const int64_t group = c.n_heads / c.n_kv_heads;
    if (QKNorm(c.qk_norm) == QKNorm::width) {
        const Layer& weights = model_.layers[size_t(layer)];
        pool_.run(rows_, [&](int64_t row, int) {
            float *q = q_.get(0) + row * ldq_, *k = k_.get(0) + row * ldk_;
            kernels_.rms_norm(q, weights.q_norm.data(), float(c.norm_eps), c.n_heads * c.d_head, q);
            kernels_.rms_norm(k, weights.k_norm.data(), float(c.norm_eps), c.n_kv_heads * c.d_head, k);
        });
    }
    blocks_.clear();
    int64_t longest = 0;
    bool alone = true;  // every head of a segment is one block, which can prepare its own queries and keys
    for (size_t s = 0; s < segments_->size(); ++s) {
        const Segment& segment = (*segments_)[s];
        longest = std::max(longest, segment.start + segment.n);
        alone = alone && segment.n * group <= kMaxQueries;
        for (int64_t head = 0; head < c.n_kv_heads; ++head)  // one head's keys and values stay in the cache
            for (int64_t begin = 0; begin < segment.n * group; begin += kMaxQueries)
                blocks_.push_back({&segment, first_row_[s], head, begin, std::min(segment.n * group, begin + kMaxQueries)});
    }
    if (!alone)
        pool_.run(rows_, [&](int64_t row, int) {
            for (int64_t head = 0; head < c.n_kv_heads; ++head) prepare_head(layer, row, head);
        });
    const int64_t ld = round_up(longest, kPageTokens), width = kv_.width;
    float* all_scores = scores_.get(pool_.threads() * kMaxQueries * ld);
    float* all_queries = queries_.get(pool_.threads() * 2 * kMaxQueries * width);
    tiles_.resize(size_t(pool_.threads() * (ld / kPageTokens)));
    float* mixed = mixed_.get(0);
    pool_.run(int64_t(blocks_.size()), [&](int64_t i, int thread) {
        const Block& block = blocks_[size_t(i)];
        const Segment& segment = *block.segment;
        if (alone)
            for (int64_t row = block.first_row; row < block.first_row + segment.n; ++row) prepare_head(layer, row, block.head);
        const int m = int(block.end - block.begin);
        float* scores = all_scores + thread * kMaxQueries * ld;
        float* queries = all_queries + thread * 2 * kMaxQueries * width;
        float* out = queries + kMaxQueries * width;
        const uint8_t** tiles = tiles_.data() + thread * (ld / kPageTokens);
        const int64_t context = segment.start + (block.end - 1) / group + 1;
        const int64_t pages = (context + kPageTokens - 1) / kPageTokens;
        for (int64_t page = 0; page < pages; ++page)
            tiles[page] = segment.cache->page(page) + (layer * c.n_kv_heads + block.head) * kv_.tile_bytes();
        auto place = [&](int64_t query) {
            return (block.first_row + query / group) * ldq_ + (block.head * group + query % group) * c.d_head;
        };
        for (int j = 0; j < m; ++j) {
            const float* from = q_.get(0) + place(block.begin + j);
            for (int64_t i = 0; i < width; ++i) queries[i * m + j] = i < c.d_head ? from[i] : 0;
        }
        kernels_.scores(kv_, tiles, pages, queries, m, scores, ld);
        for (int j = 0; j < m; ++j) {
            const int64_t limit = segment.start + (block.begin + j) / group + 1;
            kernels_.softmax(scores + j * ld, limit);
            std::fill(scores + j * ld + limit, scores + j * ld + pages * kPageTokens, 0.0f);
        }
        kernels_.mix(kv_, tiles, pages, scores, ld, m, out);
        for (int j = 0; j < m; ++j) std::memcpy(mixed + place(block.begin + j), out + j * width, size_t(c.d_head) * 4);
    });
}

// x += y, with a norm before if the model has its norms there.
void Forward::add_result(const float* gain, const float* y, int64_t ldy) {
    const pippin_config& c = model_.config;
    float *x = x_.get(0), *normed = normed_.get(0);
    pool_.run(rows_, [&](int64_t row, int) {
        kernels_.rms_norm(y + row * ldy, gain, float(c.norm_eps), c.d_model, normed + row * ldx_);
        kernels_.add(x + row * ldx_, normed + row * ldx_, c.d_model);
    });
}

const float* Forward::run(const std::vector<Segment>& segments) {
    const pippin_config& c = model_.config;
    watch_.start();
    segments_ = &segments;
    rows_ = 0;
    adapted_.clear();
    first_row_.clear(), segment_of_.clear();
    for (const Segment& segment : segments) {
        if (segment.adapter) {
            if (adapted_.empty() || adapted_.back().adapter != segment.adapter || adapted_.back().first_row + adapted_.back().n != rows_)
                adapted_.push_back({segment.adapter, rows_, 0});
            adapted_.back().n += segment.n;
        }
        first_row_.push_back(rows_);
        rows_ += segment.n;
        segment_of_.insert(segment_of_.end(), size_t(segment.n), &segment);
    }
    float *x = x_.get(rows_ * ldx_), *normed = normed_.get(rows_ * ldx_);
    float *q = q_.get(rows_ * ldq_), *k = k_.get(rows_ * ldk_), *v = v_.get(rows_ * ldk_), *mixed = mixed_.get(rows_ * ldq_);
    float *y = y_.get(rows_ * ldx_), *gate = gate_.get(rows_ * ldf_), *up = up_.get(rows_ * ldf_), *angles = angles_.get(rows_ * c.d_head);
    pool_.run(rows_, [&](int64_t row, int) {
        const Segment& segment = *segment_of_[size_t(row)];
        const int64_t place = row - first_row_[size_t(&segment - segments.data())];
        const int64_t token = segment.tokens[place];
        kernels_.embed(model_.embedding.codes + token * c.d_model, model_.embedding.scale[token], c.d_model, x + row * ldx_);
        model_.angles(segment.start + place, angles + row * c.d_head);
    });
    const auto nothing = [](int64_t, int64_t, int64_t) {};
    // Where norms come first, the sum with x is part of the product's chunks.
    const auto add_to_x = [&](int64_t, int64_t begin, int64_t end) {
        if (c.post_norm) return;
        const int64_t count = std::min<int64_t>(end, c.d_model) - begin;
        for (int64_t row = 0; row < rows_; ++row) kernels_.add(x + row * ldx_ + begin, y + row * ldx_ + begin, count);
    };
    for (int64_t layer = 0; layer < c.n_layers; ++layer) {
        const Layer& weights = model_.layers[size_t(layer)];
        const Projection* w = weights.projections;
        const float* in = c.post_norm ? x : normed;
        norm_and_pack(x, c.post_norm ? nullptr : weights.attention_norm.data(), normed, wide_);
        expect(w[O]);
        multiply(layer, {{&w[Q], Q, q, ldq_}, {&w[K], K, k, ldk_}, {&w[V], V, v, ldk_}}, false, wide_, in, ldx_, nothing);
        attend(layer);
        watch_.lap(kAttention);
        resize(mixed_in_, rows_, model_.q_width());
        pack(mixed, ldq_, mixed_in_);
        expect(w[GATE]);
        multiply(layer, {{&w[O], O, y, ldx_}}, false, mixed_in_, mixed, ldq_, add_to_x);
        if (c.post_norm) add_result(weights.attention_norm.data(), y, ldx_);
        norm_and_pack(x, c.post_norm ? nullptr : weights.ffn_norm.data(), normed, wide_);
        expect(w[DOWN]);
        // A range of rows is whole spans of the next product's input.
        resize(ffn_in_, rows_, c.d_ff);
        multiply(layer, {{&w[GATE], GATE, gate, ldf_}, {&w[UP], UP, up, ldf_}}, true, wide_, in, ldx_, [&](int64_t, int64_t begin, int64_t end) {
            for (int64_t row = 0; row < rows_; ++row) kernels_.silu_mul(gate + row * ldf_ + begin, up + row * ldf_ + begin, end - begin);
            pack_spans(gate, ldf_, ffn_in_, begin / kSpan, end >= c.d_ff ? ffn_in_.packed.padded / kSpan : end / kSpan);
        });
        if (layer + 1 < c.n_layers)
            expect(model_.layers[size_t(layer) + 1].projections[Q]);
        else
            pool_.expect(model_.head.codes, kHeadRows * c.d_model);
        multiply(layer, {{&w[DOWN], DOWN, y, ldx_}}, false, ffn_in_, gate, ldf_, add_to_x);
        if (c.post_norm) add_result(weights.ffn_norm.data(), y, ldx_);
    }
    int64_t wanted = 0;
    for (const Segment& segment : segments) wanted += segment.n - segment.logits_from;
    watch_.lap(kNorms);
    if (wanted == 0) return nullptr;
    float *last = last_.get(wanted * ldx_), *logits = logits_.get(wanted * c.vocab_size);
    resize(head_in_, wanted, c.d_model);
    int64_t to = 0;
    for (size_t s = 0; s < segments.size(); ++s)
        for (int64_t i = segments[s].logits_from; i < segments[s].n; ++i, ++to) {
            kernels_.rms_norm(x + (first_row_[s] + i) * ldx_, model_.norm.data(), float(c.norm_eps), c.d_model, last + to * ldx_);
            kernels_.pack(head_in_.packed, last, ldx_, to, 1, 0, head_in_.packed.padded / kSpan);
        }
    pool_.run((c.vocab_size + kHeadRows - 1) / kHeadRows, [&](int64_t i, int) {
        kernels_.head(model_.head.codes, model_.head.scale, i * kHeadRows, std::min<int64_t>(c.vocab_size, (i + 1) * kHeadRows),
                      head_in_.packed, logits, c.vocab_size);
    });
    watch_.lap(kHead);
    expect(model_.layers[0].projections[Q]);
    return logits;
}

void Forward::project(int64_t layer, int which, const float* x, int64_t n, float* y) {
    const Projection& w = model_.layers[size_t(layer)].projections[which];
    static const std::vector<Segment> none;
    watch_.start();
    segments_ = &none, adapted_.clear(), rows_ = n;
    resize(ffn_in_, n, w.cols);
    pack(x, w.cols, ffn_in_);
    const int64_t ldy = w.groups * kGroupRows;
    float* out = gate_.get(n * ldy);
    multiply(layer, {{&w, which, out, ldy}}, false, ffn_in_, x, w.cols, [](int64_t, int64_t, int64_t) {});
    for (int64_t i = 0; i < n; ++i) std::copy(out + i * ldy, out + i * ldy + w.rows, y + i * w.rows);
}

}  // namespace pippin
