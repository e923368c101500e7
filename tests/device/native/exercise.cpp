// Everything that the C interface can do, from several threads at once, with too little room, with no memory, and with
// nonsense. Run under sanitizers and valgrind; it also compares what must be equal.
//
//   exercise MODEL CONFIG DRAFT DRAFT_CONFIG ADAPTER RANK KERNELS REQUESTS
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#include "common.h"

// The engine's large buffers are the only aligned allocations: the n-th from now on fails.
static std::atomic<int64_t> allocations_left{-1};

void* operator new(size_t size, std::align_val_t align) {
    if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) == 0) throw std::bad_alloc();
    void* memory = nullptr;
    if (posix_memalign(&memory, size_t(align), size) != 0) throw std::bad_alloc();
    return memory;
}
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

struct Paths {
    std::string model, draft, adapter;
    pippin_config config, draft_config;
    int32_t rank;
    std::string kernels;
};

char message[2000];

pippin_model* open_model(const std::string& path, const pippin_config& config) {
    pippin_model* model = pippin_model_open(path.c_str(), &config, message, sizeof message);
    if (model == nullptr) fail("%s", message);
    return model;
}

pippin_adapter* open_adapter(const Paths& paths, const pippin_model* model, float scale) {
    char error[2000];
    pippin_adapter* adapter = pippin_adapter_open(model, paths.adapter.c_str(), paths.rank, scale, error, sizeof error);
    if (adapter == nullptr) fail("%s", error);
    return adapter;
}

pippin_engine* open_engine(const pippin_model* model, const pippin_model* draft, const pippin_options& options, int32_t vocab_size) {
    pippin_engine* engine = pippin_engine_open(model, draft, &options, message, sizeof message);
    if (engine == nullptr) fail("%s", message);
    std::string bytes;
    std::vector<int64_t> ends;
    for (int32_t i = 0; i < vocab_size; ++i) bytes += std::string(size_t(i % 3), char('a' + i % 7)), ends.push_back(int64_t(bytes.size()));
    if (pippin_engine_set_text(engine, reinterpret_cast<const uint8_t*>(bytes.data()), ends.data(), vocab_size, message, sizeof message)) fail("%s", message);
    return engine;
}

struct Answer {
    std::vector<int32_t> tokens;
    int32_t finish = PIPPIN_RUNNING;
};

// Steps until nothing is left. `failures` counts steps without memory, after which it goes on.
std::map<int64_t, Answer> finish_all(pippin_engine* engine, int64_t* failures) {
    std::map<int64_t, Answer> answers;
    pippin_event events[7];  // fewer than a step may have
    char error[2000];
    while (true) {
        const int64_t n = pippin_step(engine, events, 7, error, sizeof error);
        if (n < 0) {
            if (failures == nullptr || ++*failures > 1000) fail("step: %s", error);
            continue;
        }
        for (int64_t i = 0; i < n; ++i) {
            Answer& answer = answers[events[i].request];
            CHECK(answer.finish == PIPPIN_RUNNING);
            if (events[i].token >= 0) answer.tokens.push_back(events[i].token);
            answer.finish = events[i].finish;
        }
        if (n == 0 && pippin_pending(engine) == 0) return answers;
    }
}

std::vector<int32_t> some_prompt(const Paths& paths, Random& random) {
    // Few beginnings and many lengths: pages are shared, and given up in between.
    std::vector<int32_t> prompt;
    Random same{uint64_t(random.below(3))};
    for (int64_t n = 1 + random.below(45); n > 0; --n) prompt.push_back(int32_t(same.below(paths.config.vocab_size)));
    if (random.below(2)) prompt.back() = int32_t(random.below(paths.config.vocab_size));
    return prompt;
}

// Requests of every kind from two threads, cancelled by a third, beside scores and statistics from a fourth, while
// adapters come and go. Those that were not cancelled and draw nothing must end as they do alone.
void crowd(const Paths& paths, const pippin_options& options, int64_t requests) {
    pippin_model* model = open_model(paths.model, paths.config);
    pippin_model* draft = open_model(paths.draft, paths.draft_config);
    pippin_engine* engine = open_engine(model, draft, options, paths.config.vocab_size);
    pippin_model_close(draft);  // closed in use
    struct Plan {
        std::vector<int32_t> prompt;
        int64_t max_tokens;
        bool adapted, compare;
    };
    std::mutex mutex;
    std::map<int64_t, Plan> plans;
    std::atomic<int> submitting{2};
    std::atomic<int64_t> last_id{0};
    auto submit = [&](uint64_t seed) {
        Random random{seed};
        char error[2000];
        for (int64_t i = 0; i < requests / 2; ++i) {
            Plan plan{some_prompt(paths, random), 1 + random.below(20), random.below(2) == 1, true};
            pippin_request request = small_request(plan.prompt, plan.max_tokens);
            pippin_adapter* adapter = plan.adapted ? open_adapter(paths, model, 0.5f) : nullptr;
            request.adapter = adapter, request.speculate = int32_t(random.below(3)), request.seed = random.next();
            const int32_t stop_id = int32_t(random.below(paths.config.vocab_size));
            const char* texts[] = {"aabb", "c"};
            const int64_t lengths[] = {4, 1};
            switch (random.below(4)) {
                case 0: request.temperature = 0.9f, request.top_k = int32_t(random.below(20)), request.top_p = 0.9f, request.repetition_penalty = 1.1f, plan.compare = false; break;
                case 1: request.stop_ids = &stop_id, request.n_stop_ids = 1, plan.compare = false; break;
                case 2: request.stop_texts = texts, request.stop_lengths = lengths, request.n_stop_texts = 2, plan.compare = false; break;
            }
            std::unique_lock<std::mutex> lock(mutex);
            const int64_t id = pippin_submit(engine, &request, error, sizeof error);
            if (id < 0) fail("submit: %s", error);
            plans[id] = plan, last_id = id;
            lock.unlock();
            pippin_adapter_close(adapter);  // closed in use
        }
        --submitting;
    };
    std::thread first(submit, 1), second(submit, 2);
    std::thread cancelling([&] {
        Random random{3};
        while (submitting > 0) {
            const int64_t id = last_id - random.below(6);
            CHECK(pippin_cancel(engine, random.below(64) ? -id : id) == 0);
            std::this_thread::yield();
        }
    });
    std::thread looking([&] {
        Random random{4};
        char error[2000];
        std::vector<float> logits(size_t(paths.config.vocab_size));
        while (submitting > 0) {
            const std::vector<int32_t> prompt = some_prompt(paths, random);
            std::vector<double> scores(prompt.size());
            pippin_adapter* adapter = open_adapter(paths, model, 1.0f);
            // Both may be refused for want of room beside what runs; never with anything but a message.
            if (pippin_score(engine, prompt.data(), int64_t(prompt.size()), adapter, scores.data(), error, sizeof error)) CHECK(std::strstr(error, "no room"));
            if (pippin_logits(engine, prompt.data(), int64_t(prompt.size()), nullptr, 1, logits.data(), error, sizeof error)) CHECK(std::strstr(error, "no room"));
            pippin_adapter_close(adapter);
            pippin_stats stats;
            CHECK(pippin_get_stats(engine, &stats) == 0 && stats.pages_used <= stats.pages && pippin_pending(engine) >= 0);
        }
    });
    std::map<int64_t, Answer> answers;
    do {
        for (auto& [id, answer] : finish_all(engine, nullptr)) {
            Answer& all = answers[id];
            CHECK(all.finish == PIPPIN_RUNNING);
            all.tokens.insert(all.tokens.end(), answer.tokens.begin(), answer.tokens.end()), all.finish = answer.finish;
        }
    } while (submitting > 0 || pippin_pending(engine) > 0);
    first.join(), second.join(), cancelling.join(), looking.join();
    for (auto& [id, answer] : finish_all(engine, nullptr)) answers[id] = answer;
    CHECK(int64_t(answers.size()) == requests / 2 * 2);
    pippin_stats stats;
    CHECK(pippin_get_stats(engine, &stats) == 0);
    CHECK(stats.pages_used == 0 && stats.pages_cached <= stats.pages && pippin_pending(engine) == 0);
    pippin_engine_close(engine);

    engine = open_engine(model, nullptr, options, paths.config.vocab_size);
    pippin_adapter* adapter = open_adapter(paths, model, 0.5f);
    int64_t compared = 0, reused = stats.reused_tokens;
    for (auto& [id, plan] : plans) {
        const Answer& answer = answers[id];
        CHECK(answer.finish != PIPPIN_RUNNING && int64_t(answer.tokens.size()) <= plan.max_tokens);
        if (!plan.compare || answer.finish == PIPPIN_CANCELLED) continue;
        pippin_request request = small_request(plan.prompt, plan.max_tokens);
        request.adapter = plan.adapted ? adapter : nullptr;
        if (pippin_submit(engine, &request, message, sizeof message) < 0) fail("submit: %s", message);
        for (auto& [number, alone] : finish_all(engine, nullptr)) CHECK(alone.tokens == answer.tokens);
        ++compared;
    }
    pippin_adapter_close(adapter);
    pippin_model_close(model);
    pippin_engine_close(engine);  // after its model
    std::printf("%s %s threads %d: %lld answers, %lld compared, %lld tokens reused, %lld guessed, %lld of them right\n", paths.kernels.c_str(),
                options.exact ? "exact" : "fast", options.threads, (long long)answers.size(), (long long)compared, (long long)reused,
                (long long)stats.drafted, (long long)stats.accepted);
    CHECK(reused > 0 && stats.drafted > 0 && compared > 0);
}

// Memory runs out at each of the engine's buffers in turn; the answers stay what they are with enough of it.
void starve(const Paths& paths) {
    pippin_model* model = open_model(paths.model, paths.config);
    pippin_model* draft = open_model(paths.draft, paths.draft_config);
    pippin_adapter* adapter = open_adapter(paths, model, 0.5f);
    pippin_options options = small_options(paths.kernels.c_str());
    options.exact = 1, options.threads = 2;
    std::map<int64_t, Answer> expected;
    int64_t hungry = 0;
    for (int64_t left = -1; left < 200; ++left) {
        pippin_engine* engine = open_engine(model, draft, options, paths.config.vocab_size);
        Random random{5};
        for (int i = 0; i < 3; ++i) {
            const std::vector<int32_t> prompt = some_prompt(paths, random);
            pippin_request request = small_request(prompt, 12);
            request.speculate = i, request.adapter = i == 1 ? adapter : nullptr;
            if (pippin_submit(engine, &request, message, sizeof message) < 0) fail("submit: %s", message);
        }
        int64_t failures = 0;
        allocations_left = left;
        const std::map<int64_t, Answer> answers = finish_all(engine, &failures);
        allocations_left = -1;
        pippin_stats stats;
        CHECK(pippin_get_stats(engine, &stats) == 0 && stats.pages_used == 0);
        pippin_engine_close(engine);
        if (left < 0) {
            expected = answers;
            continue;
        }
        for (auto& [id, answer] : expected) CHECK(answers.at(id).tokens == answer.tokens);
        if (failures == 0) break;
        hungry += failures;
    }
    std::printf("%lld steps without memory\n", (long long)hungry);
    CHECK(hungry >= 20);
    pippin_adapter_close(adapter), pippin_model_close(draft), pippin_model_close(model);
}

// A sequence whose numbers overflow leaves nothing behind for the next one that gets its pages.
void poison(const Paths& paths) {
    pippin_model* model = open_model(paths.model, paths.config);
    pippin_adapter* adapter = open_adapter(paths, model, 1e38f);
    for (int32_t kv : {0, 1, 2}) {
        pippin_options options = small_options(paths.kernels.c_str());
        options.exact = 1, options.kv = kv;
        std::vector<std::vector<float>> logits;
        for (bool poisoned : {false, true}) {
            pippin_engine* engine = open_engine(model, nullptr, options, paths.config.vocab_size);
            const std::vector<int32_t> prompt(100, 3);
            pippin_request request = small_request(prompt, 12);
            request.adapter = adapter;
            if (poisoned && pippin_submit(engine, &request, message, sizeof message) < 0) fail("submit: %s", message);
            finish_all(engine, nullptr);
            logits.emplace_back(size_t(paths.config.vocab_size));
            if (pippin_logits(engine, prompt.data(), 5, nullptr, 1, logits.back().data(), message, sizeof message)) fail("logits: %s", message);
            pippin_engine_close(engine);
        }
        for (float each : logits[0]) CHECK(std::isfinite(each));
        CHECK(logits[0] == logits[1]);
    }
    pippin_adapter_close(adapter), pippin_model_close(model);
    std::printf("nothing left behind\n");
}

template <class Fn>
void refused(const char* what, Fn f) {
    message[0] = 0;
    if (f()) fail("%s was accepted", what);
    if (message[0] == 0 || std::strchr(message, '\n')) fail("%s: no line of text", what);
}

void nonsense(const Paths& paths) {
    const size_t room = sizeof message;
    pippin_model* model = open_model(paths.model, paths.config);
    pippin_options options = small_options(paths.kernels.c_str());
    pippin_engine* engine = pippin_engine_open(model, nullptr, &options, message, room);
    CHECK(engine != nullptr);
    refused("no path", [&] { return pippin_model_open(nullptr, &paths.config, message, room) != nullptr; });
    refused("no configuration", [&] { return pippin_model_open(paths.model.c_str(), nullptr, message, room) != nullptr; });
    refused("a directory", [&] { return pippin_model_open("/", &paths.config, message, room) != nullptr; });
    refused("a device", [&] { return pippin_model_open("/dev/zero", &paths.config, message, room) != nullptr; });
    refused("no model", [&] { return pippin_engine_open(nullptr, nullptr, &options, message, room) != nullptr; });
    refused("no options", [&] { return pippin_engine_open(model, nullptr, nullptr, message, room) != nullptr; });
    refused("an adapter of nothing", [&] { return pippin_adapter_open(nullptr, paths.adapter.c_str(), 4, 1, message, room) != nullptr; });
    refused("an adapter's rank", [&] { return pippin_adapter_open(model, paths.adapter.c_str(), -1, 1, message, room) != nullptr; });
    refused("no request", [&] { return pippin_submit(engine, nullptr, message, room) >= 0; });
    refused("no engine", [&] { return pippin_step(nullptr, nullptr, 0, message, room) >= 0; });
    refused("no room for events", [&] { return pippin_step(engine, nullptr, 4, message, room) >= 0; });
    CHECK(pippin_pending(nullptr) == -1 && pippin_cancel(nullptr, 1) == -1 && pippin_get_stats(engine, nullptr) == -1);
    pippin_model_close(nullptr), pippin_adapter_close(nullptr), pippin_engine_close(nullptr);

    auto option = [&](const char* what, auto change) {
        pippin_options changed = options;
        change(changed);
        refused(what, [&] { return pippin_engine_open(model, nullptr, &changed, message, room) != nullptr; });
    };
    option("threads", [](pippin_options& o) { o.threads = -1; });
    option("many threads", [](pippin_options& o) { o.threads = 100000; });
    option("kv", [](pippin_options& o) { o.kv = 3; });
    option("max_sequences", [](pippin_options& o) { o.max_sequences = 0; });
    option("prefill_chunk", [](pippin_options& o) { o.prefill_chunk = -5; });
    option("kv_tokens", [](pippin_options& o) { o.kv_tokens = -1; });
    option("all kv_tokens", [](pippin_options& o) { o.kv_tokens = int64_t(1) << 40; });
    option("kernels", [](pippin_options& o) { o.kernels = "abacus"; });

    const std::vector<int32_t> prompt = {1, 2, 3};
    auto request = [&](const char* what, auto change) {
        pippin_request changed = small_request(prompt, 4);
        change(changed);
        refused(what, [&] { return pippin_submit(engine, &changed, message, room) >= 0; });
    };
    const int32_t below = -1, beyond = paths.config.vocab_size;
    const char* const texts[] = {"x", nullptr};
    const int64_t lengths[] = {-1, 1};
    const double nan = std::atof("nan");
    request("an empty prompt", [](pippin_request& r) { r.n_tokens = 0; });
    request("fewer than no tokens", [](pippin_request& r) { r.n_tokens = -3; });
    request("no tokens", [](pippin_request& r) { r.tokens = nullptr; });
    request("a token below", [&](pippin_request& r) { r.tokens = &below, r.n_tokens = 1; });
    request("a token beyond", [&](pippin_request& r) { r.tokens = &beyond, r.n_tokens = 1; });
    request("max_tokens 0", [](pippin_request& r) { r.max_tokens = 0; });
    request("max_tokens", [](pippin_request& r) { r.max_tokens = INT64_MAX; });
    request("more than the keys' room", [](pippin_request& r) { r.max_tokens = 126; });
    request("temperature", [](pippin_request& r) { r.temperature = -1; });
    request("temperature NaN", [&](pippin_request& r) { r.temperature = float(nan); });
    request("top_k", [](pippin_request& r) { r.top_k = -1; });
    request("top_p", [](pippin_request& r) { r.top_p = 0; });
    request("min_p", [](pippin_request& r) { r.min_p = 2; });
    request("repetition_penalty", [&](pippin_request& r) { r.repetition_penalty = float(nan); });
    request("speculate", [](pippin_request& r) { r.speculate = 9; });
    request("no draft", [](pippin_request& r) { r.speculate = 2; });
    request("stop ids", [](pippin_request& r) { r.n_stop_ids = -1; });
    request("no stop ids", [](pippin_request& r) { r.n_stop_ids = 2; });
    request("stop texts before any text", [&](pippin_request& r) { r.stop_texts = texts, r.stop_lengths = lengths + 1, r.n_stop_texts = 1; });
    request("a stop text's length", [&](pippin_request& r) { r.stop_texts = texts, r.stop_lengths = lengths, r.n_stop_texts = 1; });
    request("no stop text", [&](pippin_request& r) { r.stop_texts = texts + 1, r.stop_lengths = lengths + 1, r.n_stop_texts = 1; });

    pippin_model* other = open_model(paths.model, paths.config);
    pippin_adapter* adapter = open_adapter(paths, other, 1);
    request("another model's adapter", [&](pippin_request& r) { r.adapter = adapter; });
    pippin_adapter_close(adapter), pippin_model_close(other);

    const uint8_t text[] = "abc";
    std::vector<int64_t> ends(size_t(paths.config.vocab_size), 3);
    refused("too few texts", [&] { return pippin_engine_set_text(engine, text, ends.data(), 2, message, room) == 0; });
    ends.back() = 1;
    refused("falling ends", [&] { return pippin_engine_set_text(engine, text, ends.data(), int64_t(ends.size()), message, room) == 0; });
    std::vector<double> scores(5000);
    std::vector<float> logits(size_t(paths.config.vocab_size) * 2);
    const std::vector<int32_t> longer(5000, 1);
    refused("a score of nothing", [&] { return pippin_score(engine, prompt.data(), 0, nullptr, scores.data(), message, room) == 0; });
    refused("a score of less", [&] { return pippin_score(engine, prompt.data(), -9, nullptr, scores.data(), message, room) == 0; });
    refused("a score beyond the model", [&] { return pippin_score(engine, longer.data(), 5000, nullptr, scores.data(), message, room) == 0; });
    refused("logits of too many", [&] { return pippin_logits(engine, prompt.data(), 3, nullptr, 4, logits.data(), message, room) == 0; });
    refused("a layer", [&] { return pippin_project(engine, 99, 0, logits.data(), 1, logits.data(), message, room) == 0; });
    refused("a projection", [&] { return pippin_project(engine, 0, 7, logits.data(), 1, logits.data(), message, room) == 0; });
    CHECK(pippin_cancel(engine, 12345) == 0 && pippin_cancel(engine, -1) == 0);
    pippin_event events[16];
    CHECK(pippin_step(engine, events, 16, message, room) == 0);

    pippin_config config = paths.config;
    config.d_model = INT32_MAX;
    refused("a width", [&] { return pippin_model_open(paths.model.c_str(), &config, message, room) != nullptr; });
    config = paths.config, config.n_kv_heads = 0;
    refused("no heads", [&] { return pippin_model_open(paths.model.c_str(), &config, message, room) != nullptr; });
    config = paths.config, config.n_layers += 1;
    refused("a layer more", [&] { return pippin_model_open(paths.model.c_str(), &config, message, room) != nullptr; });
    config = paths.config, config.n_layers -= 1;
    refused("a layer less", [&] { return pippin_model_open(paths.model.c_str(), &config, message, room) != nullptr; });
    pippin_engine_close(engine), pippin_model_close(model);
    CHECK(pippin_read_bandwidth(-1, -1, 1) > 0);
    std::printf("nonsense refused\n");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 9) fail("exercise MODEL CONFIG DRAFT DRAFT_CONFIG ADAPTER RANK KERNELS REQUESTS");
    Paths paths{argv[1], argv[3], argv[5], read_config(argv[2]), read_config(argv[4]), std::atoi(argv[6]), argv[7]};
    const int64_t requests = std::atoll(argv[8]);
    nonsense(paths);
    starve(paths);
    poison(paths);
    for (int32_t exact : {1, 0}) {
        paths.config.resident = exact;
        pippin_options options = small_options(paths.kernels.c_str());
        options.exact = exact, options.kv = exact ? 0 : 2, options.threads = 3;
        crowd(paths, options, requests);
    }
}
