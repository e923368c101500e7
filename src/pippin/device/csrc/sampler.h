// From logits to a token: penalty, temperature, truncation, draw; and the test that keeps a guessed token.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace pippin {

struct Sampling {
    float temperature = 0;
    int64_t top_k = 0;
    float top_p = 1, min_p = 0, repetition_penalty = 1;
    uint64_t seed = 0;
};

// Tokens that may come next and their shares of `total`. `dense`: ids are 0, 1, 2 ...
struct Choices {
    std::vector<int32_t> ids;
    std::vector<float> weights;
    double total = 0;
    bool dense = false;

    double share(int32_t token) const;
    // The token on which u in [0, 1) falls.
    int32_t draw(double u) const;
};

class Sampler {
public:
    Sampler(const Kernels& kernels, int64_t vocab_size) : kernels_(kernels), vocab_size_(vocab_size), seen_(size_t(vocab_size)) {}

    // What may follow `history` (for the penalty) under the logits.
    void choices(const Sampling& sampling, const float* logits, const std::vector<int32_t>& history, Choices& out);
    // Speculative sampling (Leviathan et al. 2023): keeps `guess`, drawn from q, with probability min(1, p / q), else
    // draws from what p has beyond q; so the token is distributed as p. `q` is nullptr for a guess that was certain.
    int32_t verify(const Choices& p, int32_t guess, const Choices* q, double u_keep, double u_draw);
    // log of the token's share of softmax(logits).
    double logprob(const float* logits, int32_t token);

    // The number in [0, 1) that is number `counter` of a seed.
    static double uniform(uint64_t seed, uint64_t counter);

private:
    const Kernels& kernels_;
    const int64_t vocab_size_;
    std::vector<uint8_t> seen_;
    std::vector<float> changed_, terms_;
    std::vector<int32_t> order_;
    Choices rest_;
};

}  // namespace pippin
