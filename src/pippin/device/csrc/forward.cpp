#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace pippin {
namespace {

constexpr int64_t kLowPiece = 512;    // inputs of A that one chunk takes
constexpr int64_t kHeadRows = 512;    // rows of the head that one chunk takes

// Where to cut `groups` row groups for `threads`: long pieces first, which memory likes, short ones last, so that all end
// together (guided self-scheduling, Polychronopoulos and Kuck 1987). Multiples of `unit`, from 0 to groups.
void cut(int64_t groups, int threads, int64_t unit, std::vector<int64_t>& cuts) {
    cuts.assign(1, 0);
    while (cuts.back() < groups) {
        const int64_t left = groups - cuts.back();
        cuts.push_back(threads == 1 ? groups : std::min(groups, cuts.back() + std::max(unit, round_up(left / (2 * threads), unit))));
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

void Forward::pack(const float* x, int64_t ld, Input& input) {
    const int64_t tile = kernels_.tile, tokens = input.packed.tokens;
    pool_.run((tokens + tile - 1) / tile, [&](int64_t i, int) {
        kernels_.pack(input.packed, x, ld, i * tile, int(std::min(tile, tokens - i * tile)));
    });
}

void Forward::norm_and_pack(const float* x, const float* gain, float* normed, Input& input) {
    resize(input, rows_, model_.config.d_model);
    const int64_t tile = kernels_.tile;
    pool_.run((rows_ + tile - 1) / tile, [&](int64_t i, int) {
        const int64_t first = i * tile, last = std::min(rows_, first + tile);
        const float* from = x;
        if (gain != nullptr) {
            for (int64_t row = first; row < last; ++row)
                kernels_.rms_norm(x + row * ldx_, gain, float(model_.config.norm_eps), model_.config.d_model, normed + row * ldx_);
            from = normed;
        }
        kernels_.pack(input.packed, from, ldx_, first, int(last - first));
    });
}

// low_ [product][row][padded rank] = A x of every row whose adapter has such a part.
void Forward::low_rank_inputs(int64_t layer, std::initializer_list<Product> products, const float* x, int64_t ldx, int64_t cols) {
    struct Task {
        const Half* a;
        int64_t product, piece, first, n;
    };
    const int64_t pieces = (cols + kLowPiece - 1) / kLowPiece;
    int64_t width = 0;
    for (const Segment& segment : *segments_)
        if (segment.adapter) width = std::max(width, round_up(segment.adapter->rank, 16));
    std::vector<Task> tasks;
    int64_t number = 0;
    for (const Product& product : products) {
        for (size_t s = 0; s < segments_->size(); ++s) {
            const Segment& segment = (*segments_)[s];
            if (!segment.adapter) continue;
            const LowRank& part = segment.adapter->part(layer, product.which);
            if (part.a.groups == 0) continue;
            for (int64_t first = 0; first < segment.n; first += 32)
                for (int64_t piece = 0; piece < pieces; ++piece)
                    tasks.push_back({&part.a, number, piece, first_row_[s] + first, std::min<int64_t>(32, segment.n - first)});
        }
        ++number;
    }
    const int64_t block = rows_ * width;
    float* low = low_.get(number * block);
    float* parts = low_parts_.get(number * pieces * block);
    pool_.run(int64_t(tasks.size()), [&](int64_t i, int) {
        const Task& task = tasks[size_t(i)];
        Half piece = *task.a;
        piece.values += task.piece * kLowPiece * kGroupRows;
        piece.cols = std::min(kLowPiece, cols - task.piece * kLowPiece);
        float* to = parts + (task.product * pieces + task.piece) * block + task.first * width;
        kernels_.matmul_half(piece, 0, piece.groups, x + task.first * ldx + task.piece * kLowPiece, ldx, int(task.n), 1.0f, false, to, width);
    });
    for (const Task& task : tasks) {
        if (task.piece > 0) continue;
        float* to = low + task.product * block + task.first * width;
        const float* from = parts + task.product * pieces * block + task.first * width;
        std::copy(from, from + task.n * width, to);
        for (int64_t piece = 1; piece < pieces; ++piece) kernels_.add(to, from + piece * block, task.n * width);
    }
}

// y = W x + bias + adapter for each product. The groups of rows are shared out among the threads; `after(product, begin,
// end)` follows on each finished range of rows. `together`: a range is that of all products, which have equal shapes.
template <class After>
void Forward::multiply(int64_t layer, std::initializer_list<Product> products, bool together, const Input& input, const float* x,
                       int64_t ldx, const After& after) {
    const Activations& packed = input.packed;
    if (adapted_) low_rank_inputs(layer, products, x, ldx, packed.cols);
    int64_t width = 0;
    if (adapted_)
        for (const Segment& segment : *segments_)
            if (segment.adapter) width = std::max(width, round_up(segment.adapter->rank, 16));
    const Product* list = products.begin();
    const int64_t n = int64_t(products.size());
    auto part = [&](int64_t p, int64_t begin, int64_t end) {
        const Product& product = list[p];
        kernels_.matmul(*product.w, begin, end, packed, product.y, product.ldy);
        const int64_t first = begin * kGroupRows, count = (end - begin) * kGroupRows;
        if (!product.w->bias.empty())
            for (int64_t row = 0; row < packed.tokens; ++row) kernels_.add(product.y + row * product.ldy + first, product.w->bias.data() + first, count);
        if (adapted_) {
            for (size_t s = 0; s < segments_->size(); ++s) {
                const Segment& segment = (*segments_)[s];
                if (!segment.adapter) continue;
                const LowRank& low = segment.adapter->part(layer, product.which);
                if (low.b.groups == 0) continue;
                kernels_.matmul_half(low.b, begin, end, low_.get(0) + (p * rows_ + first_row_[s]) * width, width, int(segment.n),
                                     segment.adapter->scale, true, product.y + first_row_[s] * product.ldy, product.ldy);
            }
        }
    };
    // Pieces of the first product, then of the second ...; of all at once if they go together.
    pieces_.clear();
    for (int64_t p = 0; p < (together ? 1 : n); ++p) {
        cut(list[p].w->groups, pool_.threads(), kernels_.streams, cuts_);
        for (size_t i = 1; i < cuts_.size(); ++i) pieces_.push_back({p, cuts_[i - 1], cuts_[i]});
    }
    // The longest first, whichever product they are of.
    std::stable_sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.end - a.begin > b.end - b.begin; });
    pool_.run(int64_t(pieces_.size()), [&](int64_t i, int) {
        const Piece& piece = pieces_[size_t(i)];
        for (int64_t p = piece.product; p < (together ? n : piece.product + 1); ++p) part(p, piece.begin, piece.end);
        after(piece.product, piece.begin * kGroupRows, piece.end * kGroupRows);
    });
}

// QK norm, rotation and scale of a row's queries and keys; its keys and values go into the cache.
void Forward::prepare_attention(int64_t layer, int64_t row) {
    const pippin_config& c = model_.config;
    const Layer& weights = model_.layers[size_t(layer)];
    float *q = q_.get(0) + row * ldq_, *k = k_.get(0) + row * ldk_, *v = v_.get(0) + row * ldk_;
    const float *cos = angles_.get(0) + row * c.d_head, *sin = cos + c.d_head / 2;
    const QKNorm norm = QKNorm(c.qk_norm);
    auto finish = [&](float* x, int64_t heads, const std::vector<float>& gain) {
        if (norm == QKNorm::width) kernels_.rms_norm(x, gain.data(), float(c.norm_eps), heads * c.d_head, x);
        for (int64_t head = 0; head < heads; ++head) {
            float* at = x + head * c.d_head;
            if (norm == QKNorm::head && !c.rope_before_norm) kernels_.rms_norm(at, gain.data(), float(c.norm_eps), c.d_head, at);
            kernels_.rotate(at, cos, sin, c.d_head / 2);
            if (norm == QKNorm::head && c.rope_before_norm) kernels_.rms_norm(at, gain.data(), float(c.norm_eps), c.d_head, at);
        }
    };
    finish(q, c.n_heads, weights.q_norm);
    finish(k, c.n_kv_heads, weights.k_norm);
    const float by = 1 / std::sqrt(float(c.d_head));
    for (int64_t i = 0; i < model_.q_width(); ++i) q[i] *= by;
    const Segment& segment = *segment_of_[size_t(row)];
    const int64_t position = segment.start + row - first_row_[size_t(&segment - segments_->data())];
    uint8_t* page = segment.cache->page(position / kPageTokens);
    for (int64_t head = 0; head < c.n_kv_heads; ++head)
        kernels_.store(kv_, k + head * c.d_head, v + head * c.d_head, int(position % kPageTokens),
                       page + (layer * c.n_kv_heads + head) * kv_.tile_bytes());
}

void Forward::attend(int64_t layer) {
    const pippin_config& c = model_.config;
    const int64_t group = c.n_heads / c.n_kv_heads;
    struct Block {
        const Segment* segment;
        int64_t first_row, head, begin, end;  // queries (token, head of the group), counted within the segment
    };
    std::vector<Block> blocks;
    int64_t longest = 0;
    for (size_t s = 0; s < segments_->size(); ++s) {
        const Segment& segment = (*segments_)[s];
        longest = std::max(longest, segment.start + segment.n);
        for (int64_t begin = 0; begin < segment.n * group; begin += kMaxQueries)
            for (int64_t head = 0; head < c.n_kv_heads; ++head)
                blocks.push_back({&segment, first_row_[s], head, begin, std::min(segment.n * group, begin + kMaxQueries)});
    }
    const int64_t ld = round_up(longest, kPageTokens), width = kv_.width;
    float* all_scores = scores_.get(pool_.threads() * kMaxQueries * ld);
    float* all_queries = queries_.get(pool_.threads() * 2 * kMaxQueries * width);
    tiles_.resize(size_t(pool_.threads() * (ld / kPageTokens)));
    float* mixed = mixed_.get(0);
    pool_.run(int64_t(blocks.size()), [&](int64_t i, int thread) {
        const Block& block = blocks[size_t(i)];
        const Segment& segment = *block.segment;
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
            float* to = queries + j * width;
            std::memcpy(to, q_.get(0) + place(block.begin + j), size_t(c.d_head) * 4);
            std::fill(to + c.d_head, to + width, 0.0f);
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
    segments_ = &segments;
    rows_ = 0, adapted_ = false;
    first_row_.clear(), segment_of_.clear();
    for (const Segment& segment : segments) {
        first_row_.push_back(rows_);
        rows_ += segment.n;
        segment_of_.insert(segment_of_.end(), size_t(segment.n), &segment);
        adapted_ |= segment.adapter != nullptr;
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
        multiply(layer, {{&w[Q], Q, q, ldq_}, {&w[K], K, k, ldk_}, {&w[V], V, v, ldk_}}, false, wide_, in, ldx_, nothing);
        pool_.run(rows_, [&](int64_t row, int) { prepare_attention(layer, row); });
        attend(layer);
        resize(mixed_in_, rows_, model_.q_width());
        pack(mixed, ldq_, mixed_in_);
        multiply(layer, {{&w[O], O, y, ldx_}}, false, mixed_in_, mixed, ldq_, add_to_x);
        if (c.post_norm) add_result(weights.attention_norm.data(), y, ldx_);
        norm_and_pack(x, c.post_norm ? nullptr : weights.ffn_norm.data(), normed, wide_);
        multiply(layer, {{&w[GATE], GATE, gate, ldf_}, {&w[UP], UP, up, ldf_}}, true, wide_, in, ldx_, [&](int64_t, int64_t begin, int64_t end) {
            for (int64_t row = 0; row < rows_; ++row) kernels_.silu_mul(gate + row * ldf_ + begin, up + row * ldf_ + begin, end - begin);
        });
        resize(ffn_in_, rows_, c.d_ff);
        pack(gate, ldf_, ffn_in_);
        multiply(layer, {{&w[DOWN], DOWN, y, ldx_}}, false, ffn_in_, gate, ldf_, add_to_x);
        if (c.post_norm) add_result(weights.ffn_norm.data(), y, ldx_);
    }
    int64_t wanted = 0;
    for (const Segment& segment : segments) wanted += segment.n - segment.logits_from;
    if (wanted == 0) return nullptr;
    float *last = last_.get(wanted * ldx_), *logits = logits_.get(wanted * c.vocab_size);
    resize(head_in_, wanted, c.d_model);
    int64_t to = 0;
    for (size_t s = 0; s < segments.size(); ++s)
        for (int64_t i = segments[s].logits_from; i < segments[s].n; ++i, ++to) {
            kernels_.rms_norm(x + (first_row_[s] + i) * ldx_, model_.norm.data(), float(c.norm_eps), c.d_model, last + to * ldx_);
            kernels_.pack(head_in_.packed, last, ldx_, to, 1);
        }
    pool_.run((c.vocab_size + kHeadRows - 1) / kHeadRows, [&](int64_t i, int) {
        kernels_.head(model_.head.codes, model_.head.scale, i * kHeadRows, std::min<int64_t>(c.vocab_size, (i + 1) * kHeadRows),
                      head_in_.packed, logits, c.vocab_size);
    });
    return logits;
}

void Forward::project(int64_t layer, int which, const float* x, int64_t n, float* y) {
    const Projection& w = model_.layers[size_t(layer)].projections[which];
    static const std::vector<Segment> none;
    segments_ = &none, adapted_ = false, rows_ = n;
    resize(ffn_in_, n, w.cols);
    pack(x, w.cols, ffn_in_);
    const int64_t ldy = w.groups * kGroupRows;
    float* out = gate_.get(n * ldy);
    multiply(layer, {{&w, which, out, ldy}}, false, ffn_in_, x, w.cols, [](int64_t, int64_t, int64_t) {});
    for (int64_t i = 0; i < n; ++i) std::copy(out + i * ldy, out + i * ldy + w.rows, y + i * w.rows);
}

}  // namespace pippin
