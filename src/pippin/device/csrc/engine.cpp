#include "engine.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "error.h"

namespace pippin {
namespace {

constexpr int64_t kMostGuesses = 12, kLongestMatch = 6, kShortestMatch = 2;

int usable_cores() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return std::max(1, int(std::thread::hardware_concurrency()));
}

int checked_threads(const pippin_options& options) {
    if (options.threads < 0 || options.threads > 256) throw Error("threads: value " + std::to_string(options.threads) + ": must be from 0 (all cores) to 256");
    return options.threads > 0 ? options.threads : usable_cores();
}

KVKind checked_kv(const pippin_options& options) {
    if (options.kv < 0 || options.kv > 2) throw Error("kv: value " + std::to_string(options.kv) + ": must be 0, 1 or 2");
    return KVKind(options.kv);
}

int64_t in_range(const char* name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
        throw Error(std::string(name) + ": value " + std::to_string(value) + ": must be from " + std::to_string(low) + " to " + std::to_string(high));
    return value;
}

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, std::shared_ptr<const Model> draft, const pippin_options& options)
    : model_(std::move(model)),
      draft_(std::move(draft)),
      kernels_(choose_kernels(options.kernels ? options.kernels : "")),
      pool_(checked_threads(options)),
      forward_(*model_, pool_, kernels_, options.exact != 0, checked_kv(options)),
      pages_(forward_.page_bytes(), pages_for(in_range("kv_tokens", options.kv_tokens, 1, int64_t(1) << 40))),
      sampler_(kernels_, model_->config.vocab_size),
      max_sequences_(in_range("max_sequences", options.max_sequences, 1, 4096)),
      prefill_chunk_(in_range("prefill_chunk", options.prefill_chunk, 1, 1 << 20)) {
    if (draft_) {
        if (draft_->config.vocab_size != model_->config.vocab_size)
            throw Error("draft: its vocabulary has " + std::to_string(draft_->config.vocab_size) + " tokens, the model's " +
                        std::to_string(model_->config.vocab_size) + "; use a draft model with the same tokenizer");
        draft_forward_ = std::make_unique<Forward>(*draft_, pool_, kernels_, options.exact != 0, checked_kv(options));
        draft_pages_ = std::make_unique<PagePool>(draft_forward_->page_bytes(), pages_.size());
    }
}

void Engine::set_text(const uint8_t* bytes, const int64_t* ends, int64_t n) {
    std::lock_guard<std::mutex> lock(step_mutex_);
    if (n != model_->config.vocab_size) throw Error("text: " + std::to_string(n) + " tokens, the model has " + std::to_string(model_->config.vocab_size));
    for (int64_t i = 0; i < n; ++i)
        if (ends[i] < (i ? ends[i - 1] : 0)) throw Error("text: the ends must not fall");
    text_bytes_.assign(bytes, bytes + (n ? ends[n - 1] : 0));
    text_ends_.assign(ends, ends + n);
}

void Engine::check_tokens(const int32_t* tokens, int64_t n) const {
    if (n < 1) throw Error("prompt: is empty; start it with <eos>, which stands before every document");
    for (int64_t i = 0; i < n; ++i)
        if (tokens[i] < 0 || tokens[i] >= model_->config.vocab_size)
            throw Error("prompt: token id " + std::to_string(tokens[i]) + " is outside 0.." + std::to_string(model_->config.vocab_size - 1) +
                        "; was it the model's tokenizer?");
}

int64_t Engine::submit(Request request) {
    const Sampling& s = request.sampling;
    const int64_t n = int64_t(request.prompt.size());
    check_tokens(request.prompt.data(), n);
    if (request.max_tokens < 1) throw Error("max_tokens: value " + std::to_string(request.max_tokens) + ": must be at least 1");
    if (request.max_tokens > model_->config.max_seq_len - n)
        throw Error("prompt: its " + std::to_string(n) + " tokens and max_tokens " + std::to_string(request.max_tokens) +
                    " exceed the model's max_seq_len " + std::to_string(model_->config.max_seq_len) + "; shorten one of them");
    if (!(s.temperature >= 0) || !std::isfinite(s.temperature)) throw Error("temperature: must be 0 (greedy) or positive");
    if (s.top_k < 0) throw Error("top_k: value " + std::to_string(s.top_k) + ": must be 0 (all tokens) or positive");
    if (!(s.top_p > 0 && s.top_p <= 1)) throw Error("top_p: must be above 0 and at most 1 (all tokens)");
    if (!(s.min_p >= 0 && s.min_p <= 1)) throw Error("min_p: must be from 0 (all tokens) to 1");
    if (!(s.repetition_penalty > 0) || !std::isfinite(s.repetition_penalty)) throw Error("repetition_penalty: must be above 0 (1 = none)");
    if (request.speculate < 0 || request.speculate > 2) throw Error("speculate: must be 0, 1 or 2");
    if (request.speculate == 2 && !draft_) throw Error("speculate: the engine has no draft model");
    Sequence sequence;
    sequence.pages = pages_for(n + request.max_tokens + (request.speculate ? kMostGuesses : 0));
    if (sequence.pages > pages_.size())
        throw Error("prompt: its " + std::to_string(n) + " tokens and max_tokens " + std::to_string(request.max_tokens) +
                    " need more than kv_tokens " + std::to_string(pages_.size() * kPageTokens) + "; shorten one of them or raise kv_tokens");
    if (!request.stop_texts.empty()) {
        std::lock_guard<std::mutex> lock(step_mutex_);
        if (text_ends_.empty()) throw Error("stop: the engine was not told the text of its tokens");
    }
    sequence.tokens = request.prompt;
    sequence.request = std::move(request);
    std::lock_guard<std::mutex> lock(queue_mutex_);
    sequence.id = next_id_++;
    ++pending_;
    waiting_.push_back(std::move(sequence));
    return waiting_.back().id;
}

void Engine::cancel(int64_t id) {
    std::lock_guard<std::mutex> lock(queue_mutex_);
    cancelled_.push_back(id);
}

int64_t Engine::pending() {
    std::lock_guard<std::mutex> lock(queue_mutex_);
    return pending_;
}

pippin_stats Engine::stats() {
    std::lock_guard<std::mutex> lock(step_mutex_);
    stats_.pages = pages_.size(), stats_.pages_used = pages_.used(), stats_.pages_cached = pages_.cached();
    stats_.kv_page_tokens = kPageTokens, stats_.kv_page_bytes = pages_.page_bytes();
    stats_.bytes_per_token = model_->bytes_per_token();
    const Stopwatch& watch = forward_.watch();
    stats_.matrix_ns = watch.ns(kMatrices), stats_.attention_ns = watch.ns(kAttention);
    stats_.norm_ns = watch.ns(kNorms), stats_.head_ns = watch.ns(kHead), stats_.wait_ns = pool_.wait_ns();
    return stats_;
}

// Takes in cancellations, then waiting requests in their order while there is room for all that they may come to need.
void Engine::admit() {
    std::lock_guard<std::mutex> lock(queue_mutex_);
    for (int64_t id : cancelled_) {
        for (std::list<Sequence>* list : {&waiting_, &running_}) {
            auto found = std::find_if(list->begin(), list->end(), [id](const Sequence& s) { return s.id == id; });
            if (found == list->end()) continue;
            events_.push_back({id, -1, PIPPIN_CANCELLED, found->settled, 0});
            if (list == &running_) retire(*found);
            list->erase(found);
            --pending_;
        }
    }
    cancelled_.clear();
    while (!waiting_.empty() && int64_t(running_.size()) < max_sequences_ && pages_promised_ + waiting_.front().pages <= pages_.size()) {
        running_.splice(running_.end(), waiting_, waiting_.begin());
        Sequence& sequence = running_.back();
        pages_promised_ += sequence.pages;
        const uint64_t salt = sequence.request.adapter ? sequence.request.adapter->uid : 0;
        sequence.cache = std::make_unique<SequenceCache>(pages_, salt);
        stats_.reused_tokens += sequence.cache->reuse(sequence.tokens.data(), int64_t(sequence.tokens.size()));
        stats_.prompt_tokens += int64_t(sequence.tokens.size());
        if (sequence.request.speculate == 2) {
            sequence.draft_cache = std::make_unique<SequenceCache>(*draft_pages_, 0);
            sequence.draft_cache->reuse(sequence.tokens.data(), int64_t(sequence.tokens.size()));
        }
    }
}

// What followed the last time that the sequence ended like this, longest match first (prompt look-up decoding).
void Engine::guess_by_lookup(Sequence& sequence) {
    const std::vector<int32_t>& tokens = sequence.tokens;
    const int64_t n = int64_t(tokens.size());
    int64_t best_end = 0, best_length = kShortestMatch - 1;
    for (int64_t end = n - 1; end >= kShortestMatch && best_length < kLongestMatch; --end) {
        int64_t length = 0;
        while (length < kLongestMatch && length < end && tokens[size_t(end - 1 - length)] == tokens[size_t(n - 1 - length)]) ++length;
        if (length > best_length) best_length = length, best_end = end;
    }
    if (best_end == 0) return;
    const int64_t last = std::min(n, best_end + sequence.guesses);
    sequence.guessed.assign(tokens.begin() + best_end, tokens.begin() + last);
}

void Engine::guess_by_draft(const std::vector<Sequence*>& sequences) {
    std::vector<Segment> segments;
    std::vector<Sequence*> owners;
    std::vector<int32_t> history;
    for (int64_t round = 0; round < kMostGuesses; ++round) {
        segments.clear(), owners.clear();
        for (Sequence* each : sequences) {
            if (round >= each->guesses) continue;
            const int64_t known = int64_t(each->tokens.size()), held = each->draft_cache->length();
            const int32_t* next = round ? &each->guessed.back() : each->tokens.data() + held;
            const int64_t n = round ? 1 : known - held;
            each->draft_cache->extend(held + n);
            segments.push_back({each->draft_cache.get(), next, n, held, nullptr, n - 1});
            owners.push_back(each);
        }
        if (segments.empty()) return;
        const float* logits = draft_forward_->run(segments);
        for (size_t i = 0; i < owners.size(); ++i) {
            Sequence& each = *owners[i];
            history = each.tokens;
            history.insert(history.end(), each.guessed.begin(), each.guessed.end());
            each.guessed_from.emplace_back();
            sampler_.choices(each.request.sampling, logits + int64_t(i) * model_->config.vocab_size, history, each.guessed_from.back());
            each.guessed.push_back(each.guessed_from.back().draw(Sampler::uniform(each.request.sampling.seed, each.noise++)));
        }
    }
}

// The draft model follows the prompts chunk by chunk, so that no step has to catch up with a whole one.
void Engine::draft_prompts(const std::vector<Segment>& segments, const std::vector<Sequence*>& owners) {
    std::vector<Segment> prompts;
    for (size_t i = 0; i < segments.size(); ++i) {
        Sequence& each = *owners[i];
        if (!each.draft_cache || segments[i].logits_from < segments[i].n) continue;
        const int64_t held = each.draft_cache->length(), end = segments[i].start + segments[i].n;
        if (held >= end) continue;
        each.draft_cache->extend(end);
        prompts.push_back({each.draft_cache.get(), each.tokens.data() + held, end - held, held, nullptr, end - held});
    }
    if (!prompts.empty()) draft_forward_->run(prompts);
}

// One forward pass over all that runs, and the tokens that follow from it.
void Engine::forward_all() {
    std::vector<Sequence*> owners, guessing;
    std::vector<Segment> segments;
    for (Sequence& each : running_) {
        const bool decoding = each.cache->length() + 1 == int64_t(each.tokens.size());
        const int64_t left = each.request.max_tokens - (int64_t(each.tokens.size()) - int64_t(each.request.prompt.size()));
        each.held = each.cache->length(), each.draft_held = each.draft_cache ? each.draft_cache->length() : 0;
        each.guessed.clear(), each.guessed_from.clear();
        if (!decoding || left < 2 || each.request.speculate == 0) continue;
        each.guesses = std::min({each.guesses, kMostGuesses, left - 1});
        if (each.request.speculate == 1)
            guess_by_lookup(each);
        else
            guessing.push_back(&each);
    }
    if (!guessing.empty()) guess_by_draft(guessing);
    std::vector<std::vector<int32_t>> inputs;
    inputs.reserve(running_.size());
    // Streams that run come first; what is left of the chunk goes to prompts, first come, first served.
    int64_t budget = prefill_chunk_;
    for (bool prompts : {false, true}) {
        for (Sequence& each : running_) {
            const int64_t held = each.cache->length(), known = int64_t(each.tokens.size());
            if ((held + 1 < known) != prompts) continue;
            const int64_t n = prompts ? std::min(known - held, budget) : 1;
            if (n == 0) continue;
            if (prompts) budget -= n;
            inputs.emplace_back(each.tokens.begin() + held, each.tokens.begin() + held + n);
            inputs.back().insert(inputs.back().end(), each.guessed.begin(), each.guessed.end());
            const int64_t rows = int64_t(inputs.back().size());
            each.cache->extend(held + rows);
            segments.push_back({each.cache.get(), inputs.back().data(), rows, held, each.request.adapter.get(), held + n == known ? n - 1 : rows});
            owners.push_back(&each);
            ++stats_.rows, stats_.rows += rows - 1;
        }
    }
    if (!segments.empty()) {
        ++stats_.steps;
        const float* logits = forward_.run(segments);
        draft_prompts(segments, owners);
        const auto begin = std::chrono::steady_clock::now();
        for (size_t i = 0; i < segments.size(); ++i) {
            if (segments[i].logits_from == segments[i].n) continue;
            Sequence* each = owners[i];
            const bool ended = advance(*each, logits);
            logits += (segments[i].n - segments[i].logits_from) * model_->config.vocab_size;
            if (!ended) continue;
            retire(*each);
            running_.remove_if([each](const Sequence& s) { return &s == each; });
            std::lock_guard<std::mutex> queue(queue_mutex_);
            --pending_;
        }
        stats_.sample_ns += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
    }
}

// Without memory for a step, the caches have room for tokens that were not computed. Forgotten, they are computed by
// a later step, and nothing that was drawn is lost.
void Engine::forget_step() {
    for (Sequence& each : running_) {
        each.cache->truncate(std::min(each.cache->length(), each.held));
        if (each.draft_cache) each.draft_cache->truncate(std::min(each.draft_cache->length(), each.draft_held));
    }
}

int64_t Engine::step(pippin_event* events, int64_t room) {
    std::lock_guard<std::mutex> lock(step_mutex_);
    if (events_.empty()) {
        admit();
        try {
            forward_all();
        } catch (...) {
            forget_step();
            throw;
        }
    }
    int64_t n = 0;
    for (; n < room && !events_.empty(); ++n) {
        events[n] = events_.front();
        events_.pop_front();
    }
    return n;
}

// Turns a sequence's logits into its next tokens: one, and one more for each guess that was right. Whether it ended.
bool Engine::advance(Sequence& sequence, const float* logits) {
    const Sampling& sampling = sequence.request.sampling;
    const int64_t n_guessed = int64_t(sequence.guessed.size());
    int64_t kept = 0;
    int finish = PIPPIN_RUNNING;
    for (int64_t i = 0; i <= n_guessed && finish == PIPPIN_RUNNING; ++i) {
        const float* row = logits + i * model_->config.vocab_size;
        sampler_.choices(sampling, row, sequence.tokens, choices_);
        int32_t token;
        bool right = false;
        if (i < n_guessed) {
            const Choices* from = sequence.guessed_from.empty() ? nullptr : &sequence.guessed_from[size_t(i)];
            const double keep = Sampler::uniform(sampling.seed, sequence.noise++), draw = Sampler::uniform(sampling.seed, sequence.noise++);
            token = sampler_.verify(choices_, sequence.guessed[size_t(i)], from, keep, draw);
            right = token == sequence.guessed[size_t(i)];
            kept += right;
        } else {
            token = choices_.draw(Sampler::uniform(sampling.seed, sequence.noise++));
        }
        const double logprob = sampler_.logprob(row, token);
        sequence.tokens.push_back(token);
        ++stats_.new_tokens;
        finish = finish_of(sequence, token);
        events_.push_back({sequence.id, token, finish, sequence.settled, logprob});
        if (!right) break;
    }
    stats_.drafted += n_guessed, stats_.accepted += kept;
    // All guesses right: guess more; else about as many as were right.
    if (n_guessed > 0) sequence.guesses = kept == n_guessed ? std::min(kMostGuesses, sequence.guesses + 2) : std::max<int64_t>(1, kept + 1);
    sequence.cache->truncate(std::min(sequence.cache->length(), int64_t(sequence.tokens.size()) - 1));
    if (sequence.draft_cache) sequence.draft_cache->truncate(std::min(sequence.draft_cache->length(), int64_t(sequence.tokens.size()) - 1));
    return finish != PIPPIN_RUNNING;
}

// Whether the sequence ends with the token it just got; keeps `settled` up to date.
int Engine::finish_of(Sequence& sequence, int32_t token) {
    const Request& request = sequence.request;
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token) != request.stop_ids.end()) {
        sequence.settled = int64_t(sequence.text.size());
        return PIPPIN_STOP_ID;
    }
    const bool full = int64_t(sequence.tokens.size() - request.prompt.size()) >= request.max_tokens;
    if (!text_ends_.empty()) {
        const int64_t begin = token ? text_ends_[size_t(token) - 1] : 0;
        const size_t before = sequence.text.size();
        sequence.text.append(reinterpret_cast<const char*>(text_bytes_.data()) + begin, size_t(text_ends_[size_t(token)] - begin));
        size_t first = std::string::npos, open = 0;  // where a stop text begins; how much of one may have begun
        for (const std::string& stop : request.stop_texts) {
            first = std::min(first, sequence.text.find(stop, before < stop.size() ? 0 : before - stop.size() + 1));
            for (size_t n = std::min(stop.size() - 1, sequence.text.size()); n > open; --n)
                if (sequence.text.compare(sequence.text.size() - n, n, stop, 0, n) == 0) open = n;
        }
        if (first != std::string::npos) {
            sequence.settled = int64_t(first);
            return PIPPIN_STOP_TEXT;
        }
        sequence.settled = int64_t(sequence.text.size() - (full ? 0 : open));
    }
    return full ? PIPPIN_LENGTH : PIPPIN_RUNNING;
}

void Engine::retire(Sequence& sequence) {
    if (sequence.cache) sequence.cache->offer(sequence.tokens.data());
    if (sequence.draft_cache) sequence.draft_cache->offer(sequence.tokens.data());
    pages_promised_ -= sequence.pages;
    sequence.cache.reset(), sequence.draft_cache.reset();
}

template <class Use>
void Engine::run_alone(const int32_t* tokens, int64_t n, const Adapter* adapter, int64_t logits_from, const Use& use) {
    check_tokens(tokens, n);
    if (n > model_->config.max_seq_len)
        throw Error("tokens: " + std::to_string(n) + " exceed the model's max_seq_len " + std::to_string(model_->config.max_seq_len));
    std::lock_guard<std::mutex> lock(step_mutex_);
    const int64_t need = pages_for(n);
    if (pages_promised_ + need > pages_.size()) throw Error("tokens: no room beside the requests that run; raise kv_tokens or wait");
    SequenceCache cache(pages_, alone_++);
    for (int64_t start = 0; start < n; start += prefill_chunk_) {
        const int64_t count = std::min(prefill_chunk_, n - start), from = std::max<int64_t>(0, std::min(count, logits_from - start));
        cache.extend(start + count);
        const float* rows = forward_.run({{&cache, tokens + start, count, start, adapter, from}});
        for (int64_t i = from; i < count; ++i) use(start + i, rows + (i - from) * model_->config.vocab_size);
    }
}

void Engine::score(const int32_t* tokens, int64_t n, std::shared_ptr<const Adapter> adapter, double* logprobs) {
    run_alone(tokens, n, adapter.get(), 0, [&](int64_t i, const float* row) {
        if (i + 1 < n) logprobs[i] = sampler_.logprob(row, tokens[i + 1]);
    });
}

void Engine::logits(const int32_t* tokens, int64_t n, std::shared_ptr<const Adapter> adapter, int64_t n_logits, float* out) {
    in_range("n_logits", n_logits, 1, n);
    run_alone(tokens, n, adapter.get(), n - n_logits, [&](int64_t i, const float* row) {
        std::memcpy(out + (i - (n - n_logits)) * model_->config.vocab_size, row, size_t(model_->config.vocab_size) * 4);
    });
}

void Engine::project(int64_t layer, int which, const float* x, int64_t n, float* y) {
    in_range("layer", layer, 0, model_->config.n_layers - 1);
    in_range("which", which, 0, 6);
    in_range("n", n, 1, 1 << 20);
    std::lock_guard<std::mutex> lock(step_mutex_);
    forward_.project(layer, which, x, n, y);
}

}  // namespace pippin
