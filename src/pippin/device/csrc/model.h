// A packed model in memory: its shape, its mapped matrices and its small vectors.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "pippin.h"
#include "safetensors.h"

namespace pippin {

enum class QKNorm : int { none = 0, head = 1, width = 2 };

struct Table {  // int8 rows with a scale each: the embedding, or an untied head
    const int8_t* codes = nullptr;
    const float* scale = nullptr;
};

struct Projection : Palette {
    std::vector<float> scales;  // what row_scale points to
    std::vector<float> bias;    // empty, or padded to groups * 16
};

struct Layer {
    Projection projections[7];  // in the order of `Which`
    std::vector<float> attention_norm, ffn_norm, q_norm, k_norm;
};

enum Which { Q, K, V, O, GATE, UP, DOWN };

class Model {
public:
    // Throws Error with one line on anything that does not fit.
    Model(const std::string& path, const pippin_config& config);

    const pippin_config config;
    Table embedding, head;
    std::vector<Layer> layers;
    std::vector<float> norm;

    int64_t q_width() const { return int64_t(config.n_heads) * config.d_head; }
    int64_t kv_width() const { return int64_t(config.n_kv_heads) * config.d_head; }
    int64_t rows(int which) const;
    int64_t cols(int which) const;
    // Bytes that one token reads: codes, tables, row scales, norms and the head.
    int64_t bytes_per_token() const;
    int64_t file_bytes() const { return file_.file_bytes(); }
    // Cosines, then sines, of the angles of a position: d_head / 2 each.
    void angles(int64_t position, float* out) const;

private:
    void read_projection(const std::string& name, int which, Projection& out);
    std::vector<float> read_floats(const std::string& name, int64_t size, bool padded = false);
    Table read_table(const std::string& name);

    Safetensors file_;
    std::vector<double> frequencies_;
};

// The stored name of a projection, without its last part: "model.layers.3.self_attn.q_proj".
std::string projection_name(int64_t layer, int which);
float half_to_float(uint16_t x);
uint16_t float_to_half(float x);

}  // namespace pippin
