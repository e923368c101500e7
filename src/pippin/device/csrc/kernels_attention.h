// Keys, values and what queries make of them; the part of kernels_body.h that attention needs, included there.

PIPPIN_INLINE uint16_t to_bf16(float x) {
    uint32_t word;
    __builtin_memcpy(&word, &x, 4);
    return uint16_t((word + 0x7FFF + (word >> 16 & 1)) >> 16);
}

static void store_kv(const KVShape& shape, const float* k, const float* v, int slot, uint8_t* tile) {
    const int width = shape.width, d = shape.d_head;
    uint8_t* values = tile + shape.half_bytes();
    auto fill = [&](auto* keys, auto* vals, auto convert_k, auto convert_v) {
        for (int i = 0; i < width; ++i) {
            keys[i * kPageTokens + slot] = convert_k(i < d ? k[i] : 0);
            vals[slot * width + i] = convert_v(i < d ? v[i] : 0);
        }
    };
    if (shape.kind == KVKind::f32) {
        auto same = [](float x) { return x; };
        fill(reinterpret_cast<float*>(tile), reinterpret_cast<float*>(values), same, same);
    } else if (shape.kind == KVKind::bf16) {
        auto shorter = [](float x) { return to_bf16(x); };  // a pointer to a function is inlined with -O2 only
        fill(reinterpret_cast<uint16_t*>(tile), reinterpret_cast<uint16_t*>(values), shorter, shorter);
    } else {
        float* scales = reinterpret_cast<float*>(tile + 2 * shape.half_bytes());
        auto to_int8 = [d](const float* x, float* scale) {
            float high = 0;
            for (int i = 0; i < d; ++i) high = __builtin_fabsf(x[i]) > high ? __builtin_fabsf(x[i]) : high;
            *scale = high / 127;
            const float by = high > 0 ? 127 / high : 0;
            return [by](float value) { return int8_t(__builtin_lrintf(value * by)); };
        };
        auto convert_k = to_int8(k, scales + slot);
        auto convert_v = to_int8(v, scales + kPageTokens + slot);
        fill(reinterpret_cast<int8_t*>(tile), reinterpret_cast<int8_t*>(values), convert_k, convert_v);
    }
}

template <KVKind KIND>
PIPPIN_INLINE F stored(const uint8_t* p, int64_t index) {
    if constexpr (KIND == KVKind::f32) return load<F>(reinterpret_cast<const float*>(p) + index);
    if constexpr (KIND == KVKind::bf16) return Isa::from_bf16(reinterpret_cast<const uint16_t*>(p) + index);
    if constexpr (KIND == KVKind::int8) return Isa::from_int8(reinterpret_cast<const int8_t*>(p) + index);
}

template <KVKind KIND, int M>
static void scores_of(const KVShape& shape, const uint8_t* const* tiles, int64_t n, const float* q, float* out, int64_t ld) {
    const int width = shape.width;
    for (int64_t page = 0; page < n; ++page) {
        const uint8_t* keys = tiles[page];
        // Pages lie apart: only we know what is read next, at last the first values.
        const uint8_t* next = page + 1 < n ? tiles[page + 1] : tiles[0] + shape.half_bytes();
        F total[2][M] = {};  // even and odd places of the head, for the latency of the sums
        for (int i = 0; i < width; i += 2) {
            __builtin_prefetch(next + i * kPageTokens * shape.item(), 0, 3);
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; ++odd) {
                F key = stored<KIND>(keys, int64_t(i + odd) * kPageTokens);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) total[odd][m] = Isa::fma(total[odd][m], key, q + (i + odd) * M + m);
            }
        }
        F by = splat<F>(1.0f);
        if constexpr (KIND == KVKind::int8) by = load<F>(reinterpret_cast<const float*>(keys + 2 * shape.half_bytes()));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            F score = total[0][m] + total[1][m];
            if constexpr (KIND == KVKind::int8) score = score * by;
            store(out + m * ld + page * kPageTokens, score);
        }
    }
}

template <KVKind KIND, int M, int C>
static void mix_columns(const KVShape& shape, const uint8_t* const* tiles, int64_t n, const float* p, int64_t ld, int column, float* out) {
    const int width = shape.width;
    F total[M][C] = {};
    for (int64_t page = 0; page < n; ++page) {
        const uint8_t* values = tiles[page] + shape.half_bytes();
        const uint8_t* next = tiles[page + 1 < n ? page + 1 : page] + shape.half_bytes();
        float weights[M * kPageTokens];  // at places that are known when the loop is compiled
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) store(weights + m * kPageTokens, load<F>(p + m * ld + page * kPageTokens));
        for (int t = 0; t < kPageTokens; ++t) {
            for (int64_t at = 0; at < C * 16 * shape.item(); at += 64) __builtin_prefetch(next + (int64_t(t) * width + column) * shape.item() + at, 0, 3);
            F value[C];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) value[c] = stored<KIND>(values, int64_t(t) * width + column + 16 * c);
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c) total[m][c] = Isa::fma(total[m][c], value[c], weights + m * kPageTokens + t);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) store(out + m * width + column + 16 * c, total[m][c]);
}

template <KVKind KIND, int M>
static void mix_of(const KVShape& shape, const uint8_t* const* tiles, int64_t n, float* p, int64_t ld, float* out) {
    if constexpr (KIND == KVKind::int8) {
        for (int64_t page = 0; page < n; ++page) {
            F by = load<F>(reinterpret_cast<const float*>(tiles[page] + 2 * shape.half_bytes()) + kPageTokens);
            for (int m = 0; m < M; ++m) store(p + m * ld + page * kPageTokens, load<F>(p + m * ld + page * kPageTokens) * by);
        }
    }
    constexpr int kColumns = M <= 2 ? 8 : M <= 4 ? 4 : 2;  // sums that fit the registers, and enough of them to hide latency
    int column = 0;
    for (; column + 16 * kColumns <= shape.width; column += 16 * kColumns) mix_columns<KIND, M, kColumns>(shape, tiles, n, p, ld, column, out);
    for (; column < shape.width; column += 16) mix_columns<KIND, M, 1>(shape, tiles, n, p, ld, column, out);
}

template <class Fn>
PIPPIN_INLINE void by_kind(KVKind kind, Fn f) {
    if (kind == KVKind::f32) f(Kind<KVKind::f32>{});
    else if (kind == KVKind::bf16) f(Kind<KVKind::bf16>{});
    else f(Kind<KVKind::int8>{});
}

static void scores(const KVShape& shape, const uint8_t* const* tiles, int64_t n, const float* q, int m, float* out, int64_t ld) {
    by_kind(shape.kind, [&](auto kind) {
        dispatch<kMaxQueries>(m, [&](auto width) {
            scores_of<decltype(kind)::kind, decltype(width)::n>(shape, tiles, n, q, out, ld);
        });
    });
}

static void mix(const KVShape& shape, const uint8_t* const* tiles, int64_t n, float* p, int64_t ld, int m, float* out) {
    by_kind(shape.kind, [&](auto kind) {
        dispatch<kMaxQueries>(m, [&](auto width) {
            mix_of<decltype(kind)::kind, decltype(width)::n>(shape, tiles, n, p, ld, out);
        });
    });
}
