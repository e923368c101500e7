#include "adapter.h"

#include <cmath>
#include <cstring>

#include "error.h"

namespace pippin {
namespace {

std::atomic<uint64_t> next_uid{1};

// [rows, cols] of any float type to [groups of 16 rows, cols, 16] in float16; rows beyond the last are 0.
void turn(const Tensor& tensor, const std::string& name, int64_t rows, int64_t cols, std::vector<uint16_t>& values, Half& out) {
    out.rows = rows, out.cols = cols, out.groups = (rows + kGroupRows - 1) / kGroupRows, out.stride = cols * kGroupRows;
    values.assign(size_t(out.groups * cols * kGroupRows), 0);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
            const uint8_t* at = tensor.data + (r * cols + c) * (tensor.dtype == DType::f32 ? 4 : 2);
            uint16_t half;
            uint32_t word = 0;
            float value;
            if (tensor.dtype == DType::f16) {
                std::memcpy(&half, at, 2);
                value = half_to_float(half);
            } else {
                if (tensor.dtype == DType::f32) {
                    std::memcpy(&word, at, 4);
                } else {
                    std::memcpy(&half, at, 2);
                    word = uint32_t(half) << 16;
                }
                std::memcpy(&value, &word, 4);
                half = float_to_half(value);
            }
            if (!std::isfinite(value) || (half & 0x7C00) == 0x7C00)
                throw Error(name + ": a value is not finite or does not fit float16; its training diverged or the file is damaged");
            values[size_t(((r / kGroupRows) * cols + c) * kGroupRows + r % kGroupRows)] = half;
        }
    out.values = values.data();
}

}  // namespace

Adapter::Adapter(const Model& model, const std::string& path, int64_t given_rank, float given_scale)
    : rank(given_rank), scale(given_scale), uid(next_uid.fetch_add(1)) {
    if (rank < 1 || rank > 4096) throw Error(path + ": r: value " + std::to_string(rank) + ": must be from 1 to 4096");
    if (!std::isfinite(scale)) throw Error(path + ": its scale is not a finite number");
    Safetensors file(path);
    parts.resize(model.layers.size() * 7);
    for (int64_t layer = 0; layer < int64_t(model.layers.size()); ++layer) {
        for (int which = Q; which <= DOWN; ++which) {
            const std::string name = "base_model.model." + projection_name(layer, which) + ".lora_";
            if (!file.has(name + "A.weight") && !file.has(name + "B.weight")) continue;
            LowRank& part = parts[size_t(7 * layer + which)];
            const Tensor &a = file.take(name + "A.weight"), &b = file.take(name + "B.weight");
            for (const Tensor* tensor : {&a, &b})
                if (tensor->dtype != DType::f16 && tensor->dtype != DType::bf16 && tensor->dtype != DType::f32)
                    throw Error(path + ": " + name + "*: must be of 16 or 32 bits");
            file.take(name + "A.weight", a.dtype, {rank, model.cols(which)});
            file.take(name + "B.weight", b.dtype, {model.rows(which), rank});
            turn(a, path + ": " + name + "A", rank, model.cols(which), part.a_values, part.a);
            turn(b, path + ": " + name + "B", model.rows(which), rank, part.b_values, part.b);
        }
    }
    file.finish();
}

}  // namespace pippin
