#include "safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "error.h"
#include "json.h"

namespace pippin {
namespace {

constexpr int64_t kMaxHeader = 100'000'000;  // the limit of the format's own library

struct TypeName {
    const char* name;
    DType dtype;
    int64_t bytes;
};
constexpr TypeName kTypes[] = {
    {"U8", DType::u8, 1}, {"I8", DType::i8, 1}, {"F16", DType::f16, 2}, {"BF16", DType::bf16, 2}, {"F32", DType::f32, 4},
};

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + "]";
}

const char* type_text(DType dtype) {
    for (const TypeName& type : kTypes)
        if (type.dtype == dtype) return type.name;
    return "another type";
}

constexpr int64_t kHugePage = 2 << 20;

// Whether the system has that much memory to give; true where it does not tell.
bool has_memory(int64_t bytes) {
    long long kilobytes = -1;
    if (std::FILE* file = std::fopen("/proc/meminfo", "re")) {
        char line[128];
        while (std::fgets(line, sizeof line, file) != nullptr && std::sscanf(line, "MemAvailable: %lld", &kilobytes) != 1) {}
        std::fclose(file);
    }
    return kilobytes < 0 || bytes / 1024 < kilobytes;
}

// The bytes of a file in memory of its own; MAP_FAILED if there are fewer than `size`. Throws std::bad_alloc.
void* read_all(int file, int64_t size, int64_t reserved) {
    void* memory = mmap(nullptr, size_t(reserved), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    madvise(memory, size_t(reserved), MADV_HUGEPAGE);
#endif
    for (int64_t at = 0; at < size;) {
        const ssize_t count = pread(file, static_cast<char*>(memory) + at, size_t(std::min<int64_t>(size - at, 1 << 30)), at);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            munmap(memory, size_t(reserved));
            return MAP_FAILED;
        }
        at += count;
    }
    return memory;
}

}  // namespace

Safetensors::Safetensors(const std::string& path, bool resident) : path_(path) {
    int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe is refused below, not waited for
    if (file < 0) throw Error(path + ": " + std::strerror(errno) + "; is the model whole?");
    struct stat status {};
    bool ok = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= 8;
    size_ = ok ? int64_t(status.st_size) : 0;
    void* memory = MAP_FAILED;
    if (ok && resident && has_memory(size_)) {
        reserved_ = (size_ + kHugePage - 1) / kHugePage * kHugePage;
        memory = read_all(file, size_, reserved_);
    } else if (ok) {
        reserved_ = size_;
        memory = mmap(nullptr, size_t(size_), PROT_READ, MAP_PRIVATE, file, 0);
    }
    close(file);
    if (memory == MAP_FAILED) throw Error(path + ": not a whole safetensors file; fetch or write it again");
    data_ = static_cast<const uint8_t*>(memory);
    try {
        read_header();
    } catch (const Error& error) {
        munmap(memory, size_t(reserved_));
        throw Error(path + ": damaged: " + error.what() + "; fetch or write it again");
    } catch (...) {
        munmap(memory, size_t(reserved_));
        throw;
    }
}

Safetensors::~Safetensors() { munmap(const_cast<uint8_t*>(data_), size_t(reserved_)); }

void Safetensors::read_header() {
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | data_[i];
    if (length > uint64_t(kMaxHeader) || int64_t(length) > size_ - 8) throw Error("its header is longer than the file");
    Json header = Json::parse({reinterpret_cast<const char*>(data_ + 8), size_t(length)});
    if (header.kind != Json::object) throw Error("its header is not an object");
    const uint8_t* start = data_ + 8 + length;
    int64_t room = size_ - 8 - int64_t(length);
    std::vector<std::pair<int64_t, int64_t>> spans;
    for (auto& [name, entry] : header.fields) {
        if (name == "__metadata__") continue;
        Tensor tensor;
        int64_t item = 0;
        for (const TypeName& type : kTypes)
            if (entry["dtype"].text == type.name) tensor.dtype = type.dtype, item = type.bytes;
        const auto& offsets = entry["data_offsets"].items;
        if (entry["shape"].kind != Json::array || offsets.size() != 2) throw Error(name + " has no shape or no place");
        int64_t begin = offsets[0].integer(), end = offsets[1].integer();
        if (begin > end || end > room) throw Error(name + " lies outside of the file");
        tensor.bytes = end - begin;
        int64_t count = 1;
        for (const Json& size : entry["shape"].items) {
            tensor.shape.push_back(size.integer());
            if (tensor.shape.back() != 0 && count > (int64_t(1) << 53) / tensor.shape.back()) throw Error(name + " is too large");
            count *= tensor.shape.back();
        }
        if (item != 0 && (count > (int64_t(1) << 53) / item || count * item != tensor.bytes))
            throw Error(name + " has other bytes than its shape says");
        tensor.data = start + begin;
        spans.emplace_back(begin, end);
        tensors_.emplace(name, std::move(tensor));
    }
    std::sort(spans.begin(), spans.end());
    for (size_t i = 1; i < spans.size(); ++i)
        if (spans[i].first < spans[i - 1].second) throw Error("two of its tensors overlap");
}

const Tensor& Safetensors::take(const std::string& name) {
    auto found = tensors_.find(name);
    if (found == tensors_.end()) throw Error(path_ + ": " + name + ": tensor missing; weights and configuration are of different models");
    taken_[name] = true;
    return found->second;
}

const Tensor& Safetensors::take(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
    const Tensor& tensor = take(name);
    if (tensor.dtype != dtype || tensor.shape != shape)
        throw Error(path_ + ": " + name + ": " + type_text(tensor.dtype) + " " + shape_text(tensor.shape) + ", but config.json says " +
                    type_text(dtype) + " " + shape_text(shape) + "; weights and configuration are of different models");
    return tensor;
}

void Safetensors::finish() const {
    for (const auto& [name, tensor] : tensors_)
        if (!taken_.count(name)) throw Error(path_ + ": " + name + ": unknown tensor for this configuration; is it of another model?");
}

}  // namespace pippin
