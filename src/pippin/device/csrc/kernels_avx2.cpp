// AVX2 with FMA and F16C: any x86-64 of the last ten years. A block of codes is two registers.
#include <immintrin.h>

#include "kernels.h"

namespace pippin::avx2 {

#include "vec.h"

struct Isa {
    static constexpr const char* kName = "avx2";
    static constexpr int kTile = 4;
    static constexpr bool kPairs = false;
    static constexpr int streams(int m) { return m == 1 ? 2 : 1; }
    static constexpr int kOffset = 0;

    using Part = U;
    PIPPIN_INLINE __m256i as_int(Vec<uint32_t, 8>::Register v) { return reinterpret_cast<__m256i>(v); }

    template <int BITS>
    struct Lut {
        __m256i bytes;
        PIPPIN_INLINE Lut make(const int8_t* table) {
            if constexpr (BITS == 4) return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)))};
            int32_t four;
            __builtin_memcpy(&four, table, 4);
            return {_mm256_set1_epi32(four)};
        }
    };
    template <int BITS>
    PIPPIN_INLINE U lookup(U raw, int f, const Lut<BITS>& lut) {
        return map<U>(
            [&](auto part) {
                __m256i index = _mm256_and_si256(_mm256_srli_epi16(as_int(part), BITS * f), _mm256_set1_epi8(15));
                return reinterpret_cast<Vec<uint32_t, 8>::Register>(_mm256_shuffle_epi8(lut.bytes, index));
            },
            raw);
    }
    // |a| times b with a's sign: two products of at most 127 * 127 fit the 16 bits in which they are added.
    PIPPIN_INLINE __m256i four_products(__m256i a, __m256i b) {
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    PIPPIN_INLINE F fma(F sums, F a, F b) {
        return map<F>([](auto x, auto y, auto z) { return Vec<float, 8>::Register(_mm256_fmadd_ps(x, y, z)); }, a, b, sums);
    }
    PIPPIN_INLINE F fma(F sums, F values, const float* x) { return fma(sums, values, splat<F>(*x)); }
    PIPPIN_INLINE I dot(I sums, U bytes, const int32_t* word) {
        return map<I>(
            [by = _mm256_set1_epi32(*word)](auto total, auto part) {
                __m256i products = four_products(as_int(part), by);
                return total + reinterpret_cast<Vec<int32_t, 8>::Register>(products);
            },
            sums, bytes);
    }
    PIPPIN_INLINE I dot_rows(U codes, U x) {
        return map<I>([](auto a, auto b) { return reinterpret_cast<Vec<int32_t, 8>::Register>(four_products(as_int(b), as_int(a))); },
                      codes, x);
    }

    template <int BITS>
    using FloatLut = Lut<BITS>;
    template <int BITS>
    PIPPIN_INLINE F value(U raw, int f, int j, const Lut<BITS>& lut) {
        I words = bits<I>(lookup<BITS>(raw, f, lut));
        return to_float((words << (24 - 8 * j)) >> 24);
    }

    PIPPIN_INLINE void to_bytes(I whole, int8_t* p) {
        int32_t lanes[16];
        store(lanes, whole);
        for (int i = 0; i < 16; ++i) p[i] = int8_t(lanes[i]);
    }
    PIPPIN_INLINE F from_int8(const int8_t* p) {
        __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return {{_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))}, {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))}};
    }
    PIPPIN_INLINE __m256 eight_bf16(const uint16_t* p) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
    PIPPIN_INLINE F from_bf16(const uint16_t* p) { return {{eight_bf16(p)}, {eight_bf16(p + 8)}}; }
    PIPPIN_INLINE F from_half(const uint16_t* p) {
        const __m128i* eights = reinterpret_cast<const __m128i*>(p);
        return {{_mm256_cvtph_ps(_mm_loadu_si128(eights))}, {_mm256_cvtph_ps(_mm_loadu_si128(eights + 1))}};
    }
};

#include "kernels_body.h"

const Kernels& table() { return kTable; }

}  // namespace pippin::avx2
