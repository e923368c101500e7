#include "model.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "error.h"

namespace pippin {
namespace {

constexpr const char* kNames[7] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                   "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

// What Python has checked already; here only so that no number can lead outside of memory.
void check(const pippin_config& c) {
    const int32_t sizes[] = {c.vocab_size, c.d_model, c.n_layers, c.n_heads, c.n_kv_heads, c.d_head, c.d_ff, c.max_seq_len};
    for (int32_t size : sizes)
        if (size < 1 || size > (1 << 24)) throw Error("config.json: a size is out of range");
    if (c.n_heads % c.n_kv_heads || c.d_head % 2 || c.d_head > 4096 || c.n_heads > 4096 || c.n_layers > 4096)
        throw Error("config.json: the heads do not fit");
    if (!(c.rope_base > 1) || !(c.norm_eps > 0) || c.qk_norm < 0 || c.qk_norm > 2) throw Error("config.json: a constant is out of range");
    if (c.rope_scaled && !(c.rope_factor > 0 && c.rope_low < c.rope_high && c.rope_original > 0))
        throw Error("config.json: rope_scaling is out of range");
}

}  // namespace

float half_to_float(uint16_t x) {
    const int exponent = x >> 10 & 31, fraction = x & 1023;
    const float size = exponent == 31 ? (fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity())
                       : exponent     ? std::ldexp(float(1024 + fraction), exponent - 25)
                                      : std::ldexp(float(fraction), -24);
    return x & 0x8000 ? -size : size;
}

// To the nearest, ties to even; beyond the range: infinity.
uint16_t float_to_half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (!(size < 65520.0f)) return sign | (std::isnan(x) ? 0x7E00 : 0x7C00);
    if (size < 6.103515625e-05f) return sign | uint16_t(std::lrintf(std::ldexp(size, 24)));
    int exponent;
    const float fraction = std::frexp(size, &exponent);  // in [0.5, 1)
    return sign | uint16_t(((exponent + 14) << 10) + int(std::lrintf(std::ldexp(fraction, 11))) - 1024);
}

std::string projection_name(int64_t layer, int which) { return "model.layers." + std::to_string(layer) + "." + kNames[which]; }

int64_t Model::rows(int which) const {
    const int64_t sizes[7] = {q_width(), kv_width(), kv_width(), config.d_model, config.d_ff, config.d_ff, config.d_model};
    return sizes[which];
}

int64_t Model::cols(int which) const {
    return which == O ? q_width() : which == DOWN ? config.d_ff : config.d_model;
}

std::vector<float> Model::read_floats(const std::string& name, int64_t size, bool padded) {
    const Tensor& tensor = file_.take(name, DType::f32, {size});
    std::vector<float> values(size_t(padded ? round_up(size, kGroupRows) : size), 0.0f);
    std::memcpy(values.data(), tensor.data, size_t(size) * 4);
    for (float value : values)
        if (!std::isfinite(value)) throw Error(file_.path() + ": " + name + ": holds NaN or infinity; the file is damaged, write it again");
    return values;
}

Table Model::read_table(const std::string& name) {
    Table table;
    table.codes = reinterpret_cast<const int8_t*>(file_.take(name + ".codes", DType::i8, {config.vocab_size, config.d_model}).data);
    const Tensor& scale = file_.take(name + ".scale", DType::f32, {config.vocab_size});
    if (reinterpret_cast<uintptr_t>(scale.data) % 4) throw Error(file_.path() + ": " + name + ".scale: not aligned; write the model again");
    table.scale = reinterpret_cast<const float*>(scale.data);
    for (int64_t i = 0; i < config.vocab_size; ++i)
        if (!std::isfinite(table.scale[i])) throw Error(file_.path() + ": " + name + ".scale: holds NaN or infinity; the file is damaged, write it again");
    return table;
}

void Model::read_projection(const std::string& name, int which, Projection& out) {
    out.rows = rows(which), out.cols = cols(which);
    out.groups = (out.rows + kGroupRows - 1) / kGroupRows;
    const Tensor& table = file_.take(name + ".table");
    out.bits = table.shape.size() == 2 && table.shape[1] == 4 ? 2 : 4;
    const int64_t inputs = out.bits == 4 ? 8 : 16;
    out.blocks = (out.cols + inputs - 1) / inputs;
    out.table = reinterpret_cast<const int8_t*>(file_.take(name + ".table", DType::i8, {out.groups, int64_t(1) << out.bits}).data);
    for (int64_t i = 0; i < out.groups << out.bits; ++i)
        if (out.table[i] < -127) throw Error(file_.path() + ": " + name + ".table: value -128: must be from -127 to 127; the file is damaged");
    out.codes = file_.take(name + ".codes", DType::u8, {out.groups, out.blocks, kBlockBytes}).data;
    const Tensor& scale = file_.take(name + ".scale", DType::f16, {out.rows});
    out.scales.assign(size_t(out.groups * kGroupRows), 0.0f);
    for (int64_t i = 0; i < out.rows; ++i) {
        uint16_t bits;
        std::memcpy(&bits, scale.data + 2 * i, 2);
        out.scales[size_t(i)] = half_to_float(bits) / 127;
        if (!std::isfinite(out.scales[size_t(i)])) throw Error(file_.path() + ": " + name + ".scale: holds NaN or infinity; the file is damaged, write it again");
    }
    out.row_scale = out.scales.data();
}

Model::Model(const std::string& path, const pippin_config& given) : config((check(given), given)), file_(path, given.resident != 0) {
    embedding = read_table("model.embed_tokens");
    head = config.tied ? embedding : read_table("lm_head");
    norm = read_floats("model.norm.weight", config.d_model);
    layers.resize(size_t(config.n_layers));
    for (int64_t i = 0; i < config.n_layers; ++i) {
        Layer& layer = layers[size_t(i)];
        const std::string prefix = "model.layers." + std::to_string(i) + ".";
        for (int which = Q; which <= DOWN; ++which) {
            Projection& projection = layer.projections[which];
            read_projection(projection_name(i, which), which, projection);
            if (config.qkv_bias && which <= V) projection.bias = read_floats(projection_name(i, which) + ".bias", projection.rows, true);
        }
        // With the norms after the sublayers, the attention's has the name that the FFN's has elsewhere.
        layer.attention_norm = read_floats(prefix + (config.post_norm ? "post_attention_layernorm" : "input_layernorm") + ".weight", config.d_model);
        layer.ffn_norm = read_floats(prefix + (config.post_norm ? "post_feedforward_layernorm" : "post_attention_layernorm") + ".weight", config.d_model);
        if (QKNorm(config.qk_norm) != QKNorm::none) {
            const bool width = QKNorm(config.qk_norm) == QKNorm::width;
            layer.q_norm = read_floats(prefix + "self_attn.q_norm.weight", width ? q_width() : config.d_head);
            layer.k_norm = read_floats(prefix + "self_attn.k_norm.weight", width ? kv_width() : config.d_head);
        }
    }
    file_.finish();
    for (int i = 0; i < config.d_head / 2; ++i) {
        double frequency = std::pow(config.rope_base, -2.0 * i / config.d_head);
        if (config.rope_scaled) {
            const double turns = config.rope_original * frequency / (2 * 3.14159265358979323846);
            const double kept = std::min(1.0, std::max(0.0, (turns - config.rope_low) / (config.rope_high - config.rope_low)));
            frequency *= kept + (1 - kept) / config.rope_factor;
        }
        frequencies_.push_back(frequency);
    }
}

int64_t Model::bytes_per_token() const {
    int64_t total = int64_t(config.vocab_size) * (config.d_model + 4) + config.d_model + 4 * config.d_model;
    for (const Layer& layer : layers) {
        for (const Projection& p : layer.projections) total += p.groups * (p.blocks * kBlockBytes + (int64_t(1) << p.bits) + kGroupRows * 4);
        total += 4 * int64_t(layer.attention_norm.size() + layer.ffn_norm.size() + layer.q_norm.size() + layer.k_norm.size());
    }
    return total;
}

void Model::angles(int64_t position, float* out) const {
    const size_t half = frequencies_.size();
    for (size_t i = 0; i < half; ++i) {
        const double angle = double(position) * frequencies_[i];
        out[i] = float(std::cos(angle));
        out[half + i] = float(std::sin(angle));
    }
}

}  // namespace pippin
