// Keys and values in pages of 16 tokens, shared by sequences that begin alike.
#pragma once
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "kernels.h"

namespace pippin {

struct Page {
    uint8_t* data = nullptr;
    int32_t users = 0;
    bool cached = false;     // can be found by its key
    uint64_t key = 0, before = 0;
    int32_t tokens[kPageTokens] = {};
    uint64_t released = 0;   // when its last user left; 0: never used
};

// All pages, in one reservation of memory that the system fills as pages are first used.
class PagePool {
public:
    // Throws Error without memory.
    PagePool(int64_t page_bytes, int64_t n_pages);
    ~PagePool();
    PagePool(const PagePool&) = delete;
    PagePool& operator=(const PagePool&) = delete;

    int64_t size() const { return int64_t(pages_.size()); }
    int64_t used() const { return used_; }
    int64_t cached() const { return int64_t(by_key_.size()); }
    int64_t page_bytes() const { return page_bytes_; }

    // A page for one user; a cached one that nobody uses is given up for it, the one longest unused first. All
    // its bytes are 0.
    Page* take();
    void release(Page* page);
    // One more user for the page that holds `tokens` after the pages that `before` stands for; nullptr if none does.
    Page* find(uint64_t before, const int32_t* tokens);
    // From now on the full page can be found. Another page with the same content keeps its place.
    void offer(Page* page, uint64_t before, const int32_t* tokens);
    static uint64_t key_of(uint64_t before, const int32_t* tokens);

private:
    int64_t page_bytes_, used_ = 0;
    uint64_t clock_ = 0;
    uint8_t* memory_ = nullptr;
    std::vector<Page> pages_;
    std::vector<Page*> free_;
    std::unordered_map<uint64_t, Page*> by_key_;
};

// The keys and values of one sequence.
class SequenceCache {
public:
    // `salt` separates what may not be shared: the adapter's number.
    SequenceCache(PagePool& pool, uint64_t salt) : pool_(pool), salt_(salt) {}
    ~SequenceCache() { truncate(0); }
    SequenceCache(const SequenceCache&) = delete;
    SequenceCache& operator=(const SequenceCache&) = delete;

    int64_t length() const { return length_; }
    uint8_t* page(int64_t index) const { return pages_[size_t(index)]->data; }
    // Starts with the cached pages of the longest beginning of `tokens` that is shorter than all of them; the number
    // of tokens that need not be computed.
    int64_t reuse(const int32_t* tokens, int64_t n);
    // Room for keys and values up to `length` tokens.
    void extend(int64_t length);
    // Forgets what comes after `length` tokens.
    void truncate(int64_t length);
    // Offers the full pages, which hold `tokens`, to later sequences.
    void offer(const int32_t* tokens);

private:
    PagePool& pool_;
    uint64_t salt_;
    int64_t length_ = 0;
    std::vector<Page*> pages_;
};

}  // namespace pippin
