#include "pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>

#include "error.h"

namespace pippin {
namespace {

constexpr uint64_t kChunkBits = 20, kMask = (uint64_t(1) << kChunkBits) - 1;
constexpr int kSpins = 4000;   // some tens of microseconds: the pauses between two loops of a token are shorter
constexpr int kYields = 200;
constexpr int64_t kFetchBytes = 256 << 10;  // a part of the smallest second-level cache of a large core

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
    try {
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {
        const size_t got = workers_.size() + 1;
        stop();
        throw Error("threads: value " + std::to_string(threads) + ": the system gives this process only " + std::to_string(got) + "; ask for fewer");
    }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

bool Pool::take_chunk(int thread) {
    uint64_t seen = state_.load(std::memory_order_acquire);
    if ((seen & kMask) >= (seen >> kChunkBits & kMask)) return false;
    uint64_t mine = state_.fetch_add(1, std::memory_order_acq_rel);
    uint64_t chunk = mine & kMask;
    if (chunk >= (mine >> kChunkBits & kMask)) return false;
    job_.call(job_.fn, int64_t(chunk), thread);
    done_.fetch_add(1, std::memory_order_acq_rel);
    return true;
}

void Pool::run_job(int64_t n, Job job) {
    // The count has room for 2^20 - 1 chunks and for the threads' vain attempts beyond the last one.
    const int64_t most = int64_t(kMask) - 4096;
    if (n > most) {
        const int64_t each = (n + most - 1) / most;
        auto several = [&](int64_t chunk, int thread) {
            for (int64_t i = chunk * each; i < std::min(n, (chunk + 1) * each); ++i) job.call(job.fn, i, thread);
        };
        return run((n + each - 1) / each, several);
    }
    const uint64_t loop = (state_.load(std::memory_order_relaxed) >> (2 * kChunkBits)) + 1;
    job_ = job;
    done_.store(0, std::memory_order_relaxed);
    state_.store(loop << (2 * kChunkBits) | uint64_t(n) << kChunkBits, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
        { std::lock_guard<std::mutex> lock(mutex_); }
        wake_.notify_all();
    }
    while (take_chunk(0)) {}
    if (done_.load(std::memory_order_acquire) == n) return;
    const auto begin = std::chrono::steady_clock::now();
    for (int spins = 0; done_.load(std::memory_order_acquire) < n; ++spins) {
        if (spins < kSpins)
            pause();
        else
            sched_yield();
    }
    wait_ns_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
}

void Pool::work(int thread) {
    const char* fetched = nullptr;  // what was expected when `ahead` bytes of it were fetched
    int64_t ahead = 0;
    for (int idle = 0; !stop_.load(std::memory_order_relaxed);) {
        if (take_chunk(thread)) {
            idle = 0;
        } else if (++idle < kSpins) {
            const char* expected = expected_.load(std::memory_order_relaxed);
            const int64_t stride = expected_stride_.load(std::memory_order_relaxed);
            if (expected != fetched) fetched = expected, ahead = 0;
            if (expected == nullptr || ahead >= std::min(stride, kFetchBytes)) {
                pause();
            } else {
                // A wrong address, as half of an old and half of a new expectation make, does no harm.
                for (int i = 0; i < 4; ++i, ahead += 64) __builtin_prefetch(expected + thread * stride + ahead, 0, 2);
            }
        } else if (idle < kSpins + kYields) {
            sched_yield();
        } else {
            std::unique_lock<std::mutex> lock(mutex_);
            asleep_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [this] {
                uint64_t seen = state_.load(std::memory_order_seq_cst);
                return stop_.load() || (seen & kMask) < (seen >> kChunkBits & kMask);
            });
            asleep_.fetch_sub(1, std::memory_order_seq_cst);
            idle = 0;
        }
    }
}

}  // namespace pippin
