// The `Isa` of plain C++ (see kernels_body.h); included inside a namespace, after vec.h.

struct Scalar {
    static constexpr int kTile = 4;
    static constexpr bool kPairs = false;
    static constexpr int streams(int) { return 1; }
    static constexpr int kOffset = 0;

    template <int BITS>
    struct Lut {
        int8_t bytes[1 << BITS];
        PIPPIN_INLINE Lut make(const int8_t* table) {
            Lut lut;
            __builtin_memcpy(lut.bytes, table, sizeof lut.bytes);
            return lut;
        }
    };
    template <int BITS>
    PIPPIN_INLINE U lookup(U raw, int f, const Lut<BITS>& lut) {
        uint8_t codes[64];
        int8_t values[64];
        store(codes, raw);
        for (int i = 0; i < 64; ++i) values[i] = lut.bytes[(codes[i] >> (BITS * f)) & ((1 << BITS) - 1)];
        return load<U>(values);
    }
    // Byte j of every lane, with its sign.
    PIPPIN_INLINE I byte(U words, int j) { return (bits<I>(words) << (24 - 8 * j)) >> 24; }
    PIPPIN_INLINE F fma(F sums, F a, F b) { return sums + a * b; }
    PIPPIN_INLINE F fma(F sums, F values, const float* x) { return sums + values * splat<F>(*x); }
    PIPPIN_INLINE I dot(I sums, U bytes, const int32_t* word) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums = sums + byte(bytes, j) * splat<I>(int32_t(int8_t(*word >> (8 * j))));
        return sums;
    }
    PIPPIN_INLINE I dot_rows(U codes, U x) {
        I sums = {};
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums = sums + byte(codes, j) * byte(x, j);
        return sums;
    }

    template <int BITS>
    using FloatLut = Lut<BITS>;
    template <int BITS>
    PIPPIN_INLINE F value(U raw, int f, int j, const Lut<BITS>& lut) {
        return to_float(byte(lookup<BITS>(raw, f, lut), j));
    }

    template <class T, class Fn>
    PIPPIN_INLINE F each(const T* p, Fn convert) {
        float lanes[16];
        for (int i = 0; i < 16; ++i) lanes[i] = convert(p[i]);
        return load<F>(lanes);
    }
    PIPPIN_INLINE void to_bytes(I whole, int8_t* p) {
        int32_t lanes[16];
        store(lanes, whole);
        for (int i = 0; i < 16; ++i) p[i] = int8_t(lanes[i]);
    }
    PIPPIN_INLINE F from_int8(const int8_t* p) {
        return each(p, [](int8_t x) { return float(x); });
    }
    PIPPIN_INLINE F from_bf16(const uint16_t* p) {
        return each(p, [](uint16_t x) {
            uint32_t word = uint32_t(x) << 16;
            float value;
            __builtin_memcpy(&value, &word, 4);
            return value;
        });
    }
    // Shifting exponent and fraction up and multiplying by 2^112 is right for subnormal numbers too.
    PIPPIN_INLINE F from_half(const uint16_t* p) {
        return each(p, [](uint16_t x) {
            uint32_t word = uint32_t(x & 0x7FFF) << 13;
            float value;
            __builtin_memcpy(&value, &word, 4);
            value *= 5.192296858534828e33f;
            return x & 0x8000 ? -value : value;
        });
    }
};
