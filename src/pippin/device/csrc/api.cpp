// The C interface: handles, and exceptions turned into messages.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <new>

#include "engine.h"
#include "error.h"

struct pippin_model {
    std::shared_ptr<const pippin::Model> model;
};
struct pippin_adapter {
    std::shared_ptr<const pippin::Model> model;
    std::shared_ptr<const pippin::Adapter> adapter;
};
struct pippin_engine {
    std::shared_ptr<const pippin::Model> model;
    pippin::Engine engine;
    const pid_t process = getpid();
};

namespace {

template <class R, class Fn>
R guarded(char* error, size_t room, R failed, Fn f) {
    try {
        return f();
    } catch (const std::bad_alloc&) {
        if (error && room) std::snprintf(error, room, "memory: not enough for this; use a smaller model or fewer kv_tokens");
    } catch (const std::exception& problem) {
        if (error && room) std::snprintf(error, room, "%s", problem.what());
    }
    // Names of a file's tensors stand in messages: what would steer a terminal (in UTF-8) does not.
    uint8_t before = 0;
    for (size_t i = 0; error && i < room && error[i]; ++i) {
        const uint8_t byte = uint8_t(error[i]);
        if (byte < 32 || byte == 127 || (before == 0xC2 && byte < 0xA0)) error[i] = '?';
        before = byte;
    }
    return failed;
}

// A handle that the caller did not get, or an argument that it forgot, must not end the process.
template <class... Pointers>
void need(const Pointers*... pointers) {
    const bool all = (... && (pointers != nullptr));
    if (!all) throw pippin::Error("the engine was called with a null pointer; was what it stands for opened?");
}

pippin::Engine& use(pippin_engine* engine) {
    need(engine);
    if (engine->process != getpid()) throw pippin::Error("engine: was opened before this process was forked, without its threads; open one here");
    return engine->engine;
}

std::shared_ptr<const pippin::Adapter> adapter_for(const pippin_engine* engine, const pippin_adapter* adapter) {
    if (adapter == nullptr) return nullptr;
    if (adapter->model != engine->model) throw pippin::Error("adapter: was opened for another model");
    return adapter->adapter;
}

}  // namespace

extern "C" {

int32_t pippin_abi(void) { return PIPPIN_ABI; }

int32_t pippin_kernels(char* names, size_t room) {
    return guarded<int32_t>(nullptr, 0, -1, [&] {
        need(names);
        std::string all;
        for (const std::string& name : pippin::available_kernels()) all += (all.empty() ? "" : " ") + name;
        std::snprintf(names, room, "%s", all.c_str());
        return 0;
    });
}

pippin_model* pippin_model_open(const char* path, const pippin_config* config, char* error, size_t room) {
    return guarded<pippin_model*>(error, room, nullptr, [&] {
        need(path, config);
        return new pippin_model{std::make_shared<const pippin::Model>(path, *config)};
    });
}

void pippin_model_close(pippin_model* model) { delete model; }

int64_t pippin_model_bytes_per_token(const pippin_model* model) { return model ? model->model->bytes_per_token() : -1; }

pippin_adapter* pippin_adapter_open(const pippin_model* model, const char* path, int32_t rank, float scale, char* error, size_t room) {
    return guarded<pippin_adapter*>(error, room, nullptr, [&] {
        need(model, path);
        return new pippin_adapter{model->model, std::make_shared<const pippin::Adapter>(*model->model, path, rank, scale)};
    });
}

void pippin_adapter_close(pippin_adapter* adapter) { delete adapter; }

pippin_engine* pippin_engine_open(const pippin_model* model, const pippin_model* draft, const pippin_options* options, char* error, size_t room) {
    return guarded<pippin_engine*>(error, room, nullptr, [&] {
        need(model, options);
        return new pippin_engine{model->model, {model->model, draft ? draft->model : nullptr, *options}};
    });
}

void pippin_engine_close(pippin_engine* engine) {
    // In a forked child there are no threads to wait for, and waiting would never end; the system takes the memory back.
    if (engine != nullptr && engine->process == getpid()) delete engine;
}

int32_t pippin_engine_set_text(pippin_engine* engine, const uint8_t* bytes, const int64_t* ends, int64_t n, char* error, size_t room) {
    return guarded<int32_t>(error, room, -1, [&] {
        need(bytes, ends);
        use(engine).set_text(bytes, ends, n);
        return 0;
    });
}

int64_t pippin_submit(pippin_engine* engine, const pippin_request* given, char* error, size_t room) {
    return guarded<int64_t>(error, room, -1, [&] {
        need(engine, given);
        if (given->n_tokens > 0) need(given->tokens);
        if (given->n_stop_ids < 0 || given->n_stop_texts < 0) throw pippin::Error("stop: their number is negative");
        if (given->n_stop_ids > 0) need(given->stop_ids);
        if (given->n_stop_texts > 0) need(given->stop_texts, given->stop_lengths);
        pippin::Request request;
        request.prompt.assign(given->tokens, given->tokens + std::max<int64_t>(0, given->n_tokens));
        request.max_tokens = given->max_tokens;
        request.sampling = {given->temperature, given->top_k, given->top_p, given->min_p, given->repetition_penalty, given->seed};
        request.speculate = given->speculate;
        request.stop_ids.assign(given->stop_ids, given->stop_ids + given->n_stop_ids);
        for (int64_t i = 0; i < given->n_stop_texts; ++i) {
            need(given->stop_texts[i]);
            if (given->stop_lengths[i] < 1) throw pippin::Error("stop: an empty text would stop everything");
            request.stop_texts.emplace_back(given->stop_texts[i], size_t(given->stop_lengths[i]));
        }
        request.adapter = adapter_for(engine, given->adapter);
        return use(engine).submit(std::move(request));
    });
}

int32_t pippin_cancel(pippin_engine* engine, int64_t request) {
    return guarded<int32_t>(nullptr, 0, -1, [&] {
        use(engine).cancel(request);
        return 0;
    });
}

int64_t pippin_step(pippin_engine* engine, pippin_event* events, int64_t room_events, char* error, size_t room) {
    return guarded<int64_t>(error, room, -1, [&] {
        if (room_events > 0) need(events);
        return use(engine).step(events, room_events);
    });
}

int64_t pippin_pending(pippin_engine* engine) {
    return guarded<int64_t>(nullptr, 0, -1, [&] { return use(engine).pending(); });
}

int32_t pippin_get_stats(pippin_engine* engine, pippin_stats* stats) {
    return guarded<int32_t>(nullptr, 0, -1, [&] {
        need(stats);
        *stats = use(engine).stats();
        return 0;
    });
}

int32_t pippin_score(pippin_engine* engine, const int32_t* tokens, int64_t n, const pippin_adapter* adapter, double* logprobs, char* error, size_t room) {
    return guarded<int32_t>(error, room, -1, [&] {
        need(engine, tokens, logprobs);
        use(engine).score(tokens, n, adapter_for(engine, adapter), logprobs);
        return 0;
    });
}

int32_t pippin_logits(pippin_engine* engine, const int32_t* tokens, int64_t n, const pippin_adapter* adapter, int64_t n_logits, float* logits,
                      char* error, size_t room) {
    return guarded<int32_t>(error, room, -1, [&] {
        need(engine, tokens, logits);
        use(engine).logits(tokens, n, adapter_for(engine, adapter), n_logits, logits);
        return 0;
    });
}

int32_t pippin_project(pippin_engine* engine, int32_t layer, int32_t which, const float* x, int64_t n, float* y, char* error, size_t room) {
    return guarded<int32_t>(error, room, -1, [&] {
        need(x, y);
        use(engine).project(layer, which, x, n, y);
        return 0;
    });
}

double pippin_read_bandwidth(int64_t bytes, int32_t threads, int32_t rounds) {
    return guarded<double>(nullptr, 0, -1.0, [&] {
        const pippin::Kernels& kernels = pippin::choose_kernels("");
        pippin::Pool pool(std::max(1, std::min(threads, 1024)));
        const int64_t piece = 1 << 20, pieces = std::max<int64_t>(1, bytes / piece);
        void* memory = mmap(nullptr, size_t(pieces * piece), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        madvise(memory, size_t(pieces * piece), MADV_HUGEPAGE);
#endif
        uint64_t* words = static_cast<uint64_t*>(memory);
        const int64_t each = piece / 8;
        for (int64_t i = 0; i < pieces * each; ++i) words[i] = uint64_t(i);
        std::atomic<uint64_t> total{0};
        double best = 0;
        for (int round = 0; round < rounds; ++round) {
            const auto start = std::chrono::steady_clock::now();
            pool.run(pieces, [&](int64_t i, int) { total += kernels.read(words + i * each, words + (i + 1) * each); });
            const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            best = std::max(best, double(pieces * piece) / seconds);
        }
        munmap(memory, size_t(pieces * piece));
        return best;
    });
}

}  // extern "C"
