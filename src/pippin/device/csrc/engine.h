// Requests in, tokens out: continuous batching, prefill in chunks, prefix reuse, speculation.
#pragma once
#include <atomic>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "forward.h"
#include "sampler.h"

namespace pippin {

struct Request {
    std::vector<int32_t> prompt;
    int64_t max_tokens = 1;
    Sampling sampling;
    int speculate = 0;
    std::vector<int32_t> stop_ids;
    std::vector<std::string> stop_texts;
    std::shared_ptr<const Adapter> adapter;
};

class Engine {
public:
    Engine(std::shared_ptr<const Model> model, std::shared_ptr<const Model> draft, const pippin_options& options);

    void set_text(const uint8_t* bytes, const int64_t* ends, int64_t n);
    int64_t submit(Request request);
    void cancel(int64_t id);
    int64_t pending();
    int64_t step(pippin_event* events, int64_t room);
    pippin_stats stats();

    void score(const int32_t* tokens, int64_t n, std::shared_ptr<const Adapter> adapter, double* logprobs);
    void logits(const int32_t* tokens, int64_t n, std::shared_ptr<const Adapter> adapter, int64_t n_logits, float* out);
    void project(int64_t layer, int which, const float* x, int64_t n, float* y);

    const Model& model() const { return *model_; }

private:
    struct Sequence {
        int64_t id = 0;
        Request request;
        std::vector<int32_t> tokens;  // prompt and answer; the cache lacks at least the last one
        std::unique_ptr<SequenceCache> cache, draft_cache;
        int64_t held = 0, draft_held = 0;  // lengths of the caches before this step
        int64_t pages = 0;            // that it may come to need
        uint64_t noise = 0;           // numbers drawn so far
        std::string text;             // of the answer, if there are stop texts
        int64_t settled = 0;
        int64_t guesses = 4;          // tokens to guess next time
        std::vector<int32_t> guessed;
        std::vector<Choices> guessed_from;
    };

    void check_tokens(const int32_t* tokens, int64_t n) const;
    void admit();
    void guess_by_lookup(Sequence& sequence);
    void guess_by_draft(const std::vector<Sequence*>& sequences);
    void draft_prompts(const std::vector<Segment>& segments, const std::vector<Sequence*>& owners);
    void forward_all();
    void forget_step();
    bool advance(Sequence& sequence, const float* logits);
    int finish_of(Sequence& sequence, int32_t token);
    void retire(Sequence& sequence);
    template <class Use>
    void run_alone(const int32_t* tokens, int64_t n, const Adapter* adapter, int64_t logits_from, const Use& use);

    const std::shared_ptr<const Model> model_, draft_;
    const Kernels& kernels_;
    Pool pool_;
    Forward forward_;
    std::unique_ptr<Forward> draft_forward_;
    PagePool pages_;
    std::unique_ptr<PagePool> draft_pages_;
    Sampler sampler_;
    const int64_t max_sequences_, prefill_chunk_;

    std::mutex step_mutex_;  // everything below but what the other mutex keeps
    std::list<Sequence> running_;
    std::deque<pippin_event> events_;
    int64_t pages_promised_ = 0;
    pippin_stats stats_{};
    Choices choices_;
    std::vector<uint8_t> text_bytes_;
    std::vector<int64_t> text_ends_;
    uint64_t alone_ = uint64_t(1) << 63;  // salts of score and logits, which share nothing

    std::mutex queue_mutex_;
    std::list<Sequence> waiting_;
    std::vector<int64_t> cancelled_;
    int64_t next_id_ = 1, pending_ = 0;
};

}  // namespace pippin
