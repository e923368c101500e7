// The kernels, written once. kernels_*.cpp include this inside a namespace, after vec.h and their `Isa`:
//
//   kTile, streams(m)           the widest tile, and how many row groups to compute side by side for m tokens
//   kPairs                      whether `panel<BITS, M>` computes an even number of tokens for itself
//   kOffset                     128 if looked-up codes are table values + 128, else 0
//   Lut<BITS>::make(table)      a group's table, ready for
//   lookup<BITS>(raw, f, lut)   field f of every byte of a 64-byte block, as bytes
//   dot(sums, bytes, word)      sums[lane] += the four bytes of a lane times the four int8 in `*word`
//   fma(sums, values, x)        sums[lane] += values[lane] * *x, or x[lane] if x is a vector; the one place where products
//                               and sums may be one rounding: all else rounds alike on every processor
//   FloatLut / value(raw, f, j, lut)  input 4 f + j of every row as float
//   to_bytes(I, p)              sixteen whole numbers from -128 to 127 as bytes
//   from_int8, from_bf16, from_half(p)  sixteen stored numbers as floats
//   dot_rows(codes, x)          of each lane four int8 codes (+ kOffset) times four int8 of x, summed

//
// Nothing of the standard library's inline code is used here: see vec.h.

template <int N>
struct Number {
    static constexpr int n = N;
};
// T, but looked into only once the template around it is used.
template <class T, int>
struct Dependent {
    using type = T;
};
template <KVKind KIND>
struct Kind {
    static constexpr KVKind kind = KIND;
};

// Calls f(Number<n>{}) for n from 1 to MOST.
template <int MOST, class Fn>
PIPPIN_INLINE void dispatch(int n, Fn f) {
    if constexpr (MOST > 1) {
        if (n < MOST) return dispatch<MOST - 1>(n, f);
    }
    f(Number<MOST>{});
}

PIPPIN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- palettized products ------------------------------------------------------------------------------------------

// For a few tokens a product waits for memory only: one stream of codes at a time, fetched ahead by hand, is read at the
// speed of a plain read. Integer sums are exact, so a chain of them for each field hides their latency and changes no bit.
constexpr int kAhead = 1024;

template <int BITS, int G, int M>
__attribute__((noinline)) static void panel_fast(const Palette& w, int64_t group, const int8_t* x, const float* scale, const int32_t* start, float* y,
                       int64_t ldy) {
    constexpr int kFields = 8 / BITS, kBlocks = kSpan / (4 * kFields);  // blocks of a span of inputs
    const int64_t stride = w.blocks * kBlockBytes;
    const uint8_t* codes = w.codes + group * stride;
    typename Isa::template Lut<BITS> lut[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) lut[g] = Isa::template Lut<BITS>::make(w.table + (group + g) * (1 << BITS));
    F total[G][M] = {};
    const int32_t* words = reinterpret_cast<const int32_t*>(x);
    for (int64_t block = 0; block < w.blocks; block += kBlocks) {
        constexpr int kChains = M <= 3 ? kFields : 1;
        I sums[G][M][kChains];
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            I from = splat<I>(start[m]);
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) {
                sums[g][m][0] = from;
#pragma GCC unroll 4
                for (int f = 1; f < kChains; ++f) sums[g][m][f] = I{};
            }
        }
        const int64_t n = least(kBlocks, w.blocks - block);
        for (int64_t b = 0; b < n; ++b, words += kFields * M) {
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) {
                // Of one group what comes next; beside each other, the same place of the next groups.
                __builtin_prefetch(codes + g * stride + (block + b) * kBlockBytes + (G == 1 ? kAhead : G * stride), 0, 2);
                U raw = load<U>(codes + g * stride + (block + b) * kBlockBytes);
#pragma GCC unroll 4
                for (int f = 0; f < kFields; ++f) {
                    U bytes = Isa::template lookup<BITS>(raw, f, lut[g]);
#pragma GCC unroll 16
                    for (int m = 0; m < M; ++m) sums[g][m][f % kChains] = Isa::dot(sums[g][m][f % kChains], bytes, words + f * M + m);
                }
            }
        }
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            F by = splat<F>(scale[m]);
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) {
                I sum = sums[g][m][0];
#pragma GCC unroll 4
                for (int f = 1; f < kChains; ++f) sum = sum + sums[g][m][f];
                total[g][m] = Isa::fma(total[g][m], to_float(sum), by);
            }
        }
        start += M, scale += M;
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
        F by = load<F>(w.row_scale + (group + g) * kGroupRows);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) store(y + m * ldy + (group + g) * kGroupRows, total[g][m] * by);
    }
}

template <int BITS, int G, int M>
__attribute__((noinline)) static void panel_exact(const Palette& w, int64_t group, const float* x, float* y, int64_t ldy) {
    constexpr int kFields = 8 / BITS;
    const int64_t stride = w.blocks * kBlockBytes;
    const uint8_t* codes = w.codes + group * stride;
    typename Isa::template FloatLut<BITS> lut[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) lut[g] = Isa::template FloatLut<BITS>::make(w.table + (group + g) * (1 << BITS));
    F total[G][M] = {};
    for (int64_t block = 0; block < w.blocks; ++block, x += 4 * kFields * M) {
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            if constexpr (M <= 2) __builtin_prefetch(codes + (g + G) * stride + block * kBlockBytes, 0, 2);  // the next groups
            U raw = load<U>(codes + g * stride + block * kBlockBytes);
#pragma GCC unroll 4
            for (int f = 0; f < kFields; ++f) {
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {
                    F value = Isa::template value<BITS>(raw, f, j, lut[g]);
#pragma GCC unroll 16
                    for (int m = 0; m < M; ++m) total[g][m] = Isa::fma(total[g][m], value, x + (4 * f + j) * M + m);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
        F by = load<F>(w.row_scale + (group + g) * kGroupRows);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) store(y + m * ldy + (group + g) * kGroupRows, total[g][m] * by);
    }
}

template <int BITS, int M>
static void tile_product(const Palette& w, int64_t begin, int64_t end, const Activations& x, int64_t first, float* y, int64_t ldy) {
    // Exact sums are float sums: their order may not depend on M, so that a token's result knows no neighbours. Several
    // groups side by side hide the latency there.
    const int64_t spans = first * (x.padded / kSpan);
    auto run = [&](auto groups, auto panel) {
        constexpr int G = decltype(groups)::n;
        int64_t group = begin;
        for (; group + G <= end; group += G) panel(Number<G>{}, group);
        for (; group < end; ++group) panel(Number<1>{}, group);
    };
    if constexpr (Isa::kPairs && M % 2 == 0) {
        if (!x.exact) {
            using Processor = typename Dependent<Isa, M>::type;
            for (int64_t group = begin; group < end; ++group)
                Processor::template panel<BITS, M>(w, group, x.bytes + first * x.padded, x.scale + spans, y + first * ldy, ldy);
            return;
        }
    }
    if (x.exact)
        run(Number<Isa::streams(M)>{}, [&](auto width, int64_t group) {
            panel_exact<BITS, decltype(width)::n, M>(w, group, x.floats + first * x.padded, y + first * ldy, ldy);
        });
    else
        run(Number<(M <= 3 ? 1 : Isa::streams(M))>{}, [&](auto width, int64_t group) {
            panel_fast<BITS, decltype(width)::n, M>(w, group, x.bytes + first * x.padded, x.scale + spans, x.start + spans,
                                                    y + first * ldy, ldy);
        });
}

template <int BITS>
static void product(const Palette& w, int64_t begin, int64_t end, const Activations& x, float* y, int64_t ldy) {
    // A few groups stay in the cache while all tiles of tokens pass over them.
    constexpr int64_t kPanel = 2 * Isa::streams(1);
    for (int64_t group = begin; group < end; group += kPanel) {
        const int64_t last = least(end, group + kPanel);
        for (int64_t first = 0; first < x.tokens; first += Isa::kTile) {
            const int m = int(least(Isa::kTile, x.tokens - first));
            dispatch<Isa::kTile>(m, [&](auto width) {
                tile_product<BITS, decltype(width)::n>(w, group, last, x, first, y, ldy);
            });
        }
    }
}

static void matmul(const Palette& w, int64_t begin, int64_t end, const Activations& x, float* y, int64_t ldy) {
    if (w.bits == 4)
        product<4>(w, begin, end, x, y, ldy);
    else
        product<2>(w, begin, end, x, y, ldy);
}

static void pack(Activations& out, const float* x, int64_t ld, int64_t first, int n, int64_t begin, int64_t end) {
    if (out.exact) {
        float* to = out.floats + first * out.padded;
        for (int m = 0; m < n; ++m) {
            const float* from = x + (first + m) * ld;
            const int64_t last = least(out.cols, end * kSpan);
            for (int64_t k = begin * kSpan; k < last; ++k) to[k * n + m] = from[k];
            for (int64_t k = last; k < end * kSpan; ++k) to[k * n + m] = 0;
        }
        return;
    }
    const int64_t spans = out.padded / kSpan;
    int32_t* words = reinterpret_cast<int32_t*>(out.bytes + first * out.padded);
    float* scale = out.scale + first * spans;
    int32_t* start = out.start + first * spans;
    for (int m = 0; m < n; ++m) {
        for (int64_t span = begin; span < end; ++span) {
            const float* from = x + (first + m) * ld + span * kSpan;
            float padded[kSpan];
            const int64_t left = out.cols - span * kSpan;
            if (left < kSpan) {
                for (int64_t k = 0; k < kSpan; ++k) padded[k] = k < left ? from[k] : 0;
                from = padded;
            }
            F parts[4], high = {};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) parts[i] = load<F>(from + 16 * i), high = larger(high, magnitude(parts[i]));
            const float largest = maximum(high);
            const F by = splat<F>(largest > 0 ? 127 / largest : 0.0f);
            I whole[4], total = {};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
                F rounded = parts[i] * by + splat<F>(12582912.0f) - splat<F>(12582912.0f);
                whole[i] = to_int(rounded), total = total + whole[i];
            }
            int32_t in_all[16], sum = 0;
            store(in_all, total);
            for (int i = 0; i < 16; ++i) sum += in_all[i];
            int8_t bytes[kSpan];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) Isa::to_bytes(whole[i], bytes + 16 * i);
            for (int i = 0; i < kSpan / 4; ++i) __builtin_memcpy(words + (span * (kSpan / 4) + i) * n + m, bytes + 4 * i, 4);
            scale[span * n + m] = largest / 127;
            start[span * n + m] = -Isa::kOffset * sum;
        }
    }
}

// ---- adapters -----------------------------------------------------------------------------------------------------

template <int M>
static void panel_half(const Half& w, int64_t group, const float* x, int64_t ldx, float alpha, bool add, float* y, int64_t ldy) {
    const uint16_t* values = w.values + group * w.stride;
    F total[2][M] = {};  // two chains, for the latency of the sums
    int64_t k = 0;
    for (; k + 2 <= w.cols; k += 2) {
        __builtin_prefetch(values + k * kGroupRows + kAhead, 0, 2);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            F value = Isa::from_half(values + (k + half) * kGroupRows);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) total[half][m] = Isa::fma(total[half][m], value, x + m * ldx + k + half);
        }
    }
    for (; k < w.cols; ++k)
        for (int m = 0; m < M; ++m) total[0][m] = total[0][m] + Isa::from_half(values + k * kGroupRows) * splat<F>(x[m * ldx + k]);
    for (int m = 0; m < M; ++m) {
        float* to = y + m * ldy + group * kGroupRows;
        F result = (total[0][m] + total[1][m]) * splat<F>(alpha);
        store(to, add ? load<F>(to) + result : result);
    }
}

static void matmul_half(const Half& w, int64_t begin, int64_t end, const float* x, int64_t ldx, int n, float alpha, bool add,
                        float* y, int64_t ldy) {
    for (int64_t group = begin; group < end; ++group)
        for (int first = 0; first < n; first += 4)
            dispatch<4>(int(least(4, n - first)), [&](auto width) {
                panel_half<decltype(width)::n>(w, group, x + first * ldx, ldx, alpha, add, y + first * ldy, ldy);
            });
}

// ---- head and embedding -------------------------------------------------------------------------------------------

template <int M>
static void head_fast(const int8_t* codes, const float* scale, int64_t begin, int64_t end, const Activations& x, int64_t first,
                      float* y, int64_t ldy) {
    const int64_t whole = x.cols / kSpan, spans = x.padded / kSpan;
    const int8_t* bytes = x.bytes + first * x.padded;
    const float* by = x.scale + first * spans;
    float offset[M] = {};  // what kOffset adds to a row's sum: the same for all rows
    for (int m = 0; m < M; ++m)
        for (int64_t span = 0; span < spans; ++span) offset[m] += float(x.start[(first + m) * spans + span]) * by[m * spans + span];
    for (int64_t row = begin; row < end; ++row) {
        const int8_t* from = codes + row * x.cols;
        F total[M] = {};
        int8_t last[kSpan] = {};
        for (int64_t span = 0; span < spans; ++span) {
            const int8_t* part = from + span * kSpan;
            if (span == whole) __builtin_memcpy(last, part, size_t(x.cols - whole * kSpan)), part = last;
            __builtin_prefetch(from + span * kSpan + kAhead, 0, 2);
            U raw = load<U>(part);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m)
                total[m] = Isa::fma(total[m], to_float(Isa::dot_rows(raw, load<U>(bytes + m * x.padded + span * kSpan))), by + m * spans + span);
        }
        for (int m = 0; m < M; ++m) y[(first + m) * ldy + row] = (sum(total[m]) + offset[m]) * scale[row];
    }
}

template <int M>
static void head_exact(const int8_t* codes, const float* scale, int64_t begin, int64_t end, const Activations& x, int64_t first,
                       float* y, int64_t ldy) {
    const float* floats = x.floats + first * x.padded;
    for (int64_t row = begin; row < end; ++row) {
        const int8_t* from = codes + row * x.cols;
        F total[M] = {};
        int64_t k = 0;
        for (; k + 16 <= x.cols; k += 16) {
            F value = Isa::from_int8(from + k);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) total[m] = Isa::fma(total[m], value, load<F>(floats + m * x.padded + k));
        }
        for (int m = 0; m < M; ++m) {
            float rest = 0;
            for (int64_t i = k; i < x.cols; ++i) rest += float(from[i]) * floats[m * x.padded + i];
            y[(first + m) * ldy + row] = (sum(total[m]) + rest) * scale[row];
        }
    }
}

static void head(const int8_t* codes, const float* scale, int64_t begin, int64_t end, const Activations& x, float* y, int64_t ldy) {
    for (int64_t first = 0; first < x.tokens; first += 4)
        dispatch<4>(int(least(4, x.tokens - first)), [&](auto width) {
            if (x.exact)
                head_exact<decltype(width)::n>(codes, scale, begin, end, x, first, y, ldy);
            else
                head_fast<decltype(width)::n>(codes, scale, begin, end, x, first, y, ldy);
        });
}

static void embed(const int8_t* codes, float scale, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = float(codes[i]) * scale;
}

// ---- vectors ------------------------------------------------------------------------------------------------------

static void rms_norm(const float* x, const float* gain, float eps, int64_t n, float* out) {
    F total = {};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        F part = load<F>(x + i);
        total = Isa::fma(total, part, part);
    }
    float squares = sum(total);
    for (int64_t j = i; j < n; ++j) squares += x[j] * x[j];
    const float by = 1 / __builtin_sqrtf(squares / float(n) + eps);
    for (i = 0; i + 16 <= n; i += 16) store(out + i, load<F>(x + i) * splat<F>(by) * load<F>(gain + i));
    for (; i < n; ++i) out[i] = x[i] * by * gain[i];
}

// Room for 16 more floats behind the last one is the caller's promise, here and in `add` and `softmax`.
static void silu_mul(float* gate, const float* up, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        F g = load<F>(gate + i);
        store(gate + i, g / (splat<F>(1.0f) + exponential(F{} - g)) * load<F>(up + i));
    }
}

static void add(float* y, const float* x, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(y + i, load<F>(y + i) + load<F>(x + i));
    for (; i < n; ++i) y[i] += x[i];
}

static void rotate(float* head, const float* cos, const float* sin, int half) {
    for (int i = 0; i < half; ++i) {
        const float a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i] + a * sin[i];
    }
}

static void softmax(float* x, int64_t n) {
    F highs = splat<F>(x[0]);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) highs = larger(highs, load<F>(x + i));
    float high = maximum(highs);
    for (; i < n; ++i) high = high > x[i] ? high : x[i];
    for (i = 0; i < n; i += 16) store(x + i, exponential(load<F>(x + i) - splat<F>(high)));
    F totals = {};
    for (i = 0; i + 16 <= n; i += 16) totals = totals + load<F>(x + i);
    float total = sum(totals);
    for (; i < n; ++i) total += x[i];
    const F by = splat<F>(1 / total);
    for (i = 0; i < n; i += 16) store(x + i, load<F>(x + i) * by);
}

static int64_t largest(const float* x, int64_t n) {
    F highs = splat<F>(x[0]);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) highs = larger(highs, load<F>(x + i));
    float high = maximum(highs);
    for (; i < n; ++i) high = high > x[i] ? high : x[i];
    for (i = 0; i < n; ++i)
        if (x[i] == high) return i;
    return 0;  // not a number
}

static double exp_sum(const float* x, int64_t n, float high, float by, float* out) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(out + i, exponential((load<F>(x + i) - splat<F>(high)) * splat<F>(by)));
    if (i < n) {
        float last[16] = {};
        for (int64_t j = i; j < n; ++j) last[j - i] = x[j];
        store(out + i, exponential((load<F>(last) - splat<F>(high)) * splat<F>(by)));
    }
    double totals[8] = {};
    for (i = 0; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; ++j) totals[j] += double(out[i + j]);
    for (; i < n; ++i) totals[0] += double(out[i]);
    return ((totals[0] + totals[1]) + (totals[2] + totals[3])) + ((totals[4] + totals[5]) + (totals[6] + totals[7]));
}

#include "kernels_attention.h"

static uint64_t read_words(const uint64_t* begin, const uint64_t* end) {
    U sums[4] = {};
    const uint64_t* p = begin;
    for (; p + 32 <= end; p += 32)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[i] = sums[i] + load<U>(p + 8 * i);
    uint32_t lanes[16];
    store(lanes, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    uint64_t total = 0;
    for (uint32_t lane : lanes) total += lane;
    return total;
}

static const Kernels kTable = {Isa::kName, Isa::kTile, pack,   matmul,  matmul_half, head,   embed, rms_norm,
                               silu_mul,   add,        rotate,          softmax, largest, exp_sum, store_kv, scores,      mix,    read_words};
