// What the engine computes, as a table of functions; one table for each kind of processor.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace pippin {

constexpr int kGroupRows = 16;   // output rows that share a table (docs/format.md)
constexpr int kBlockBytes = 64;  // codes of 16 rows and 8 (4 bits) or 16 (2 bits) inputs
constexpr int kSpan = 64;        // inputs that share a scale once activations are int8
constexpr int kPageTokens = 16;  // tokens of a page of the cache of keys and values

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// A palettized matrix [rows, cols]; see docs/format.md.
struct Palette {
    const uint8_t* codes = nullptr;     // [groups, blocks, 64], mapped
    const int8_t* table = nullptr;      // [groups, 2^bits], mapped
    const float* row_scale = nullptr;   // [groups * 16], with the table's 1 / 127; 0 beyond the rows
    int64_t rows = 0, cols = 0, groups = 0, blocks = 0;
    int bits = 0;
};

// A dense matrix in 16 bits for the adapters: [groups of 16 rows, cols, 16], float16, `stride` numbers from one group to
// the next.
struct Half {
    const uint16_t* values = nullptr;
    int64_t rows = 0, cols = 0, groups = 0, stride = 0;
};

// Input vectors of a product, in tiles of at most `Kernels::tile` tokens: inputs outermost, tokens side by side.
// Inputs are padded with zeros to `padded`, a multiple of kSpan. The head takes tiles of one token.
struct Activations {
    int64_t tokens = 0, cols = 0, padded = 0;
    bool exact = false;
    float* floats = nullptr;   // exact: tile after tile [padded, tokens of the tile]
    int8_t* bytes = nullptr;   // fast: tile after tile [padded / 4, tokens of the tile, 4]
    float* scale = nullptr;    // fast: tile after tile [padded / kSpan, tokens of the tile]
    int32_t* start = nullptr;  // fast: what the integer sums start from, shaped like scale
};

enum class KVKind : int { f32 = 0, bf16 = 1, int8 = 2 };

// One layer and head of a page: keys [head width][16 tokens], then values [16 tokens][head width], then for int8 a
// float scale of each key and of each value. The width is padded to 16.
struct KVShape {
    KVKind kind;
    int d_head, width;  // width = d_head padded
    int64_t item() const { return kind == KVKind::f32 ? 4 : kind == KVKind::bf16 ? 2 : 1; }
    int64_t half_bytes() const { return kPageTokens * width * item(); }
    int64_t tile_bytes() const { return 2 * half_bytes() + (kind == KVKind::int8 ? 2 * kPageTokens * 4 : 0); }
};

constexpr int kMaxQueries = 8;  // query rows that attention handles side by side

struct Kernels {
    const char* name;
    int tile;  // most tokens of a tile

    // Spans [begin, end) of tokens [first, first + n) of x [*, ld], a whole tile, into the tile's place.
    void (*pack)(Activations& out, const float* x, int64_t ld, int64_t first, int n, int64_t begin, int64_t end);
    // y[token, row] = W x for the rows of groups [begin, end) and all tokens of x; y has round_up(rows, 16) columns.
    void (*matmul)(const Palette& w, int64_t begin, int64_t end, const Activations& x, float* y, int64_t ldy);
    // y[token, row] (+)= alpha * (W x)[row] for groups [begin, end) and n tokens of x [n, ldx].
    void (*matmul_half)(const Half& w, int64_t begin, int64_t end, const float* x, int64_t ldx, int n, float alpha, bool add,
                        float* y, int64_t ldy);
    // y[token, row] = scale[row] * codes[row] . x[token] for rows [begin, end) and all tokens of x, in tiles of one.
    void (*head)(const int8_t* codes, const float* scale, int64_t begin, int64_t end, const Activations& x, float* y, int64_t ldy);
    void (*embed)(const int8_t* codes, float scale, int64_t n, float* out);
    void (*rms_norm)(const float* x, const float* gain, float eps, int64_t n, float* out);
    void (*silu_mul)(float* gate, const float* up, int64_t n);
    void (*add)(float* y, const float* x, int64_t n);
    void (*rotate)(float* head, const float* cos, const float* sin, int half);
    void (*softmax)(float* x, int64_t n);
    // The place of the largest of x, of equals the first.
    int64_t (*largest)(const float* x, int64_t n);
    // Sum of e^((x - high) by) in double precision; the terms go to `out`, which has room for 16 more floats than n.
    double (*exp_sum)(const float* x, int64_t n, float high, float by, float* out);
    // Keys and values of one token and head into place `slot` of a tile.
    void (*store)(const KVShape& shape, const float* k, const float* v, int slot, uint8_t* tile);
    // scores[m, 16 p + t] = q[:, m] . key t of page p, for n pages; q [width, m].
    void (*scores)(const KVShape& shape, const uint8_t* const* tiles, int64_t n, const float* q, int m, float* out, int64_t ld);
    // out[m, :] = sum over tokens of p[m, token] * value; out [m, width]. p is 0 beyond the last token.
    void (*mix)(const KVShape& shape, const uint8_t* const* tiles, int64_t n, float* p, int64_t ld, int m, float* out);
    // Sum of the words of [begin, end): a plain read, for the memory limit.
    uint64_t (*read)(const uint64_t* begin, const uint64_t* end);
};

// The best table for this processor, or the one of that name ("" = best). Throws Error with the names that work here.
const Kernels& choose_kernels(const std::string& name);
// The names of all tables that work on this processor, best first.
std::vector<std::string> available_kernels();

}  // namespace pippin
