// Threads that take chunks of a loop as they get to them.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace pippin {

// A loop ends when its chunks are done, not when every thread has come by: a thread that the system has put aside
// between two chunks is not waited for. Waiting threads spin, then yield, then sleep.
class Pool {
public:
    // Throws Error if the system gives fewer threads.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return int(workers_.size()) + 1; }
    // What the loop after the next one will read first: thread t from `data` + t * `stride`. Threads with nothing to do
    // fetch it into their caches, while memory would rest.
    void expect(const void* data, int64_t stride) {
        expected_stride_.store(stride, std::memory_order_relaxed);
        expected_.store(static_cast<const char*>(data), std::memory_order_relaxed);
    }
    // Nanoseconds that callers of `run` have waited for other threads' last chunks.
    int64_t wait_ns() const { return wait_ns_; }

    // Calls f(chunk, thread) for every chunk from 0 to n - 1; the caller is thread 0. Not from within f.
    template <class Fn>
    void run(int64_t n, const Fn& f) {
        if (n <= 0) return;
        if (n == 1 || workers_.empty()) {
            for (int64_t i = 0; i < n; ++i) f(i, 0);
            return;
        }
        run_job(n, {[](const void* fn, int64_t chunk, int thread) { (*static_cast<const Fn*>(fn))(chunk, thread); }, &f});
    }

private:
    struct Job {
        void (*call)(const void*, int64_t, int) = nullptr;
        const void* fn = nullptr;
    };

    void run_job(int64_t n, Job job);
    void work(int thread);
    void stop();
    bool take_chunk(int thread);

    // Loop number (24 bits), number of chunks (20), next chunk (20) in one word: whoever gets a chunk with one
    // fetch_add knows that its loop cannot end, nor its job be replaced, before that chunk is done.
    std::atomic<uint64_t> state_{0};
    Job job_;
    std::atomic<int64_t> done_{0};
    int64_t wait_ns_ = 0;
    std::atomic<const char*> expected_{nullptr};
    std::atomic<int64_t> expected_stride_{0};

    std::atomic<bool> stop_{false};
    std::atomic<int> asleep_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

}  // namespace pippin
