#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pippin {

double Choices::share(int32_t token) const {
    if (dense) return double(weights[size_t(token)]) / total;
    auto found = std::find(ids.begin(), ids.end(), token);
    return found == ids.end() ? 0 : double(weights[size_t(found - ids.begin())]) / total;
}

int32_t Choices::draw(double u) const {
    const double at = u * total;
    double passed = 0;
    int32_t last = ids.front();
    for (size_t i = 0; i < ids.size(); ++i) {
        if (weights[i] <= 0) continue;
        passed += double(weights[i]);
        last = ids[i];
        if (at < passed) break;
    }
    return last;
}

double Sampler::uniform(uint64_t seed, uint64_t counter) {
    uint64_t x = seed + (counter + 1) * 0x9E3779B97F4A7C15u;  // SplitMix64, its n-th number
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    return double(x >> 11) * 0x1p-53;
}

void Sampler::choices(const Sampling& sampling, const float* logits, const std::vector<int32_t>& history, Choices& out) {
    if (sampling.repetition_penalty != 1) {  // Keskar et al. 2019, equation 5; once a token
        changed_.assign(logits, logits + vocab_size_);
        for (int32_t token : history) {
            if (seen_[size_t(token)]) continue;
            seen_[size_t(token)] = 1;
            float& logit = changed_[size_t(token)];
            logit = logit > 0 ? logit / sampling.repetition_penalty : logit * sampling.repetition_penalty;
        }
        for (int32_t token : history) seen_[size_t(token)] = 0;
        logits = changed_.data();
    }
    const int64_t best = kernels_.largest(logits, vocab_size_);
    if (sampling.temperature == 0) {
        out.ids = {int32_t(best)}, out.weights = {1}, out.total = 1, out.dense = false;
        return;
    }
    const int64_t k = sampling.top_k > 0 && sampling.top_k < vocab_size_ ? sampling.top_k : 0;
    out.weights.resize(size_t(vocab_size_) + 16);
    out.total = kernels_.exp_sum(logits, vocab_size_, logits[best], 1 / sampling.temperature, out.weights.data());
    out.weights.resize(size_t(vocab_size_));
    out.dense = k == 0 && sampling.top_p >= 1 && sampling.min_p <= 0;
    if (out.dense) {
        if (int64_t(out.ids.size()) != vocab_size_ || out.ids.back() != vocab_size_ - 1 || out.ids.front() != 0) {
            out.ids.resize(size_t(vocab_size_));
            std::iota(out.ids.begin(), out.ids.end(), 0);
        }
        return;
    }
    // The most likely first, of equals the lower id; as far as they are needed. A damaged model's NaN comes last: with
    // an order that is none, sorting may leave its range.
    terms_.swap(out.weights);
    order_.clear();
    for (int64_t i = 0; i < vocab_size_; ++i)
        if (terms_[size_t(i)] >= sampling.min_p) order_.push_back(int32_t(i));
    auto later = [&](int32_t a, int32_t b) {
        const float x = logits[a], y = logits[b];
        if (x != x || y != y) return x != x && (y == y || a > b);
        return x < y || (x == y && a > b);
    };
    if (k > 0 && k < int64_t(order_.size())) {
        std::nth_element(order_.begin(), order_.begin() + (k - 1), order_.end(), [&](int32_t a, int32_t b) { return later(b, a); });
        order_.resize(size_t(k));
    }
    double all = 0;
    for (int32_t token : order_) all += double(terms_[size_t(token)]);
    // top_p counts the share of what top_k left, or of everything.
    const double enough = double(sampling.top_p) * (k > 0 ? all : out.total);
    std::make_heap(order_.begin(), order_.end(), later);
    out.ids.clear(), out.weights.clear();
    out.total = 0;
    for (auto end = order_.end(); end != order_.begin(); --end) {
        std::pop_heap(order_.begin(), end, later);
        const int32_t token = *(end - 1);
        out.ids.push_back(token);
        out.weights.push_back(terms_[size_t(token)]);
        out.total += double(out.weights.back());
        if (out.total >= enough) break;
    }
}

int32_t Sampler::verify(const Choices& p, int32_t guess, const Choices* q, double u_keep, double u_draw) {
    const double share = p.share(guess), guessed = q == nullptr ? 1 : q->share(guess);
    if (u_keep * guessed < share) return guess;
    std::vector<float>& guesses = changed_;  // q's weights by token: to look each up in its list would take the square of the time
    if (q != nullptr) {
        guesses.assign(size_t(vocab_size_), 0.0f);
        for (size_t i = 0; i < q->ids.size(); ++i) guesses[size_t(q->ids[i])] = q->weights[i];
    }
    rest_.ids = p.ids;
    rest_.weights.resize(p.ids.size());
    rest_.total = 0;
    for (size_t i = 0; i < p.ids.size(); ++i) {
        const double other = q == nullptr ? (p.ids[i] == guess ? 1 : 0) : double(guesses[size_t(p.ids[i])]) / q->total;
        rest_.weights[i] = float(std::max(0.0, double(p.weights[i]) / p.total - other));
        rest_.total += double(rest_.weights[i]);
    }
    return rest_.total > 0 ? rest_.draw(u_draw) : p.draw(u_draw);
}

double Sampler::logprob(const float* logits, int32_t token) {
    const float high = logits[kernels_.largest(logits, vocab_size_)];
    terms_.resize(size_t(vocab_size_) + 16);
    return double(logits[token]) - double(high) - std::log(kernels_.exp_sum(logits, vocab_size_, high, 1.0f, terms_.data()));
}

}  // namespace pippin
