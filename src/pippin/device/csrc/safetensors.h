// A safetensors file, mapped, or read into huge pages.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pippin {

enum class DType { u8, i8, f16, bf16, f32, other };

struct Tensor {
    const uint8_t* data = nullptr;
    DType dtype = DType::other;
    std::vector<int64_t> shape;
    int64_t bytes = 0;
};

class Safetensors {
public:
    // Maps `path` and checks its header: every tensor lies in the file, has the bytes that its shape and type say, and
    // overlaps no other. Throws Error with one line that names the file.
    // `resident`: its bytes are read into memory of huge pages, which is faster to read from than a mapped file; one that
    // is larger than the memory that is left is mapped.
    explicit Safetensors(const std::string& path, bool resident = false);
    ~Safetensors();
    Safetensors(const Safetensors&) = delete;
    Safetensors& operator=(const Safetensors&) = delete;

    const std::string& path() const { return path_; }
    int64_t file_bytes() const { return size_; }

    bool has(const std::string& name) const { return tensors_.count(name) != 0; }
    // The tensor of that name, type and shape; throws Error if there is none. Taken tensors are remembered.
    const Tensor& take(const std::string& name, DType dtype, const std::vector<int64_t>& shape);
    // The tensor of that name whatever it is.
    const Tensor& take(const std::string& name);
    // Throws Error if a tensor was never taken: it belongs to another model.
    void finish() const;

private:
    void read_header();

    std::string path_;
    const uint8_t* data_ = nullptr;
    int64_t size_ = 0, reserved_ = 0;  // bytes of the file, and of the memory at data_
    std::map<std::string, Tensor> tensors_;
    std::map<std::string, bool> taken_;
};

}  // namespace pippin
