// What the programs of this folder share: the model of the test that started them, and errors that end them.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "pippin.h"

[[noreturn]] inline void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::exit(1);
}

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

// The numbers of `pippin_config` in the order of its fields, as the test wrote them.
inline pippin_config read_config(const std::string& path) {
    pippin_config config{};
    std::FILE* file = std::fopen(path.c_str(), "r");
    if (file == nullptr) fail("%s: cannot be read", path.c_str());
    int32_t* whole = &config.vocab_size;
    for (int i = 0; i < 14; ++i) CHECK(std::fscanf(file, "%d", whole + i) == 1);
    double* real = &config.rope_base;
    for (int i = 0; i < 6; ++i) CHECK(std::fscanf(file, "%lf", real + i) == 1);
    CHECK(std::fscanf(file, "%d", &config.resident) == 1);
    std::fclose(file);
    return config;
}

inline std::string read_file(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) fail("%s: cannot be read", path.c_str());
    std::string bytes;
    char part[65536];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
    std::fclose(file);
    return bytes;
}

// SplitMix64: the same numbers on every machine.
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t x = state += 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        return x ^ x >> 31;
    }
    int64_t below(int64_t n) { return n > 0 ? int64_t(next() % uint64_t(n)) : 0; }
};

inline pippin_options small_options(const char* kernels) {
    pippin_options options{};
    options.threads = 1, options.max_sequences = 4, options.prefill_chunk = 8, options.kv_tokens = 128, options.kernels = kernels;
    return options;
}

inline pippin_request small_request(const std::vector<int32_t>& prompt, int64_t max_tokens) {
    pippin_request request{};
    request.tokens = prompt.data(), request.n_tokens = int64_t(prompt.size()), request.max_tokens = max_tokens;
    request.top_p = 1, request.repetition_penalty = 1;
    return request;
}
