#include "cache.h"

#include <sys/mman.h>

#include <cstring>

#include "error.h"

namespace pippin {

PagePool::PagePool(int64_t page_bytes, int64_t n_pages) : page_bytes_(page_bytes) {
    if (n_pages < 1 || page_bytes > (int64_t(1) << 46) / n_pages) throw Error("kv_tokens: more than a machine can have; ask for fewer");
    pages_.resize(size_t(n_pages)), free_.reserve(size_t(n_pages));  // first: these can throw, and the mapping has no owner yet
    void* memory = mmap(nullptr, size_t(page_bytes * n_pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        throw Error("kv_tokens: no memory for " + std::to_string(page_bytes * n_pages >> 20) + " MiB of keys and values; ask for fewer");
#if defined(MADV_HUGEPAGE)
    madvise(memory, size_t(page_bytes * n_pages), MADV_HUGEPAGE);
#endif
    memory_ = static_cast<uint8_t*>(memory);
    for (int64_t i = n_pages - 1; i >= 0; --i) {
        pages_[size_t(i)].data = memory_ + i * page_bytes;
        free_.push_back(&pages_[size_t(i)]);
    }
}

PagePool::~PagePool() { munmap(memory_, size_t(page_bytes_ * size())); }

Page* PagePool::take() {
    Page* page = nullptr;
    if (!free_.empty()) {
        page = free_.back();
        free_.pop_back();
    } else {
        for (Page& each : pages_)
            if (each.users == 0 && (page == nullptr || each.released < page->released)) page = &each;
        if (page == nullptr) throw Error("keys and values: no page is left");  // admission sees to it that there is one
        by_key_.erase(page->key);
        page->cached = false;
    }
    // Places without a token yet have weight 0 in attention, but 0 times what another sequence's overflow left is NaN.
    if (page->released > 0) std::memset(page->data, 0, size_t(page_bytes_));
    page->users = 1;
    ++used_;
    return page;
}

void PagePool::release(Page* page) {
    if (--page->users > 0) return;
    --used_;
    page->released = ++clock_;
    if (!page->cached) free_.push_back(page);
}

uint64_t PagePool::key_of(uint64_t before, const int32_t* tokens) {
    uint64_t key = before;
    for (int i = 0; i < kPageTokens; ++i) {
        key = (key ^ uint64_t(uint32_t(tokens[i]))) + 0x9E3779B97F4A7C15u;  // SplitMix64 over the tokens
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9u;
        key = (key ^ key >> 27) * 0x94D049BB133111EBu;
        key ^= key >> 31;
    }
    return key;
}

Page* PagePool::find(uint64_t before, const int32_t* tokens) {
    auto found = by_key_.find(key_of(before, tokens));
    if (found == by_key_.end()) return nullptr;
    Page* page = found->second;
    if (page->before != before || std::memcmp(page->tokens, tokens, sizeof page->tokens) != 0) return nullptr;
    if (page->users++ == 0) ++used_;
    return page;
}

void PagePool::offer(Page* page, uint64_t before, const int32_t* tokens) {
    if (page->cached) return;
    const uint64_t key = key_of(before, tokens);
    if (!by_key_.emplace(key, page).second) return;
    page->cached = true, page->key = key, page->before = before;
    std::memcpy(page->tokens, tokens, sizeof page->tokens);
}

int64_t SequenceCache::reuse(const int32_t* tokens, int64_t n) {
    uint64_t before = salt_;
    while (length_ + kPageTokens < n) {
        Page* page = pool_.find(before, tokens + length_);
        if (page == nullptr) break;
        pages_.push_back(page);
        before = page->key;
        length_ += kPageTokens;
    }
    return length_;
}

void SequenceCache::extend(int64_t length) {
    while (int64_t(pages_.size()) * kPageTokens < length) pages_.push_back(pool_.take());
    length_ = length;
}

void SequenceCache::truncate(int64_t length) {
    length_ = length;
    // The last page goes first, so that of a long unused beginning its end is given up first.
    while (int64_t(pages_.size()) > (length + kPageTokens - 1) / kPageTokens) {
        pool_.release(pages_.back());
        pages_.pop_back();
    }
}

void SequenceCache::offer(const int32_t* tokens) {
    uint64_t before = salt_;
    for (int64_t i = 0; (i + 1) * kPageTokens <= length_; ++i) {
        pool_.offer(pages_[size_t(i)], before, tokens + i * kPageTokens);
        before = PagePool::key_of(before, tokens + i * kPageTokens);
    }
}

}  // namespace pippin
