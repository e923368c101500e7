// AVX-512 with VBMI and VNNI: Ice Lake, Sapphire Rapids, Zen 4 and later. A block of codes is one register.
#include <immintrin.h>

#include "kernels.h"

namespace pippin::avx512 {

#include "vec.h"

struct Isa {
    static constexpr const char* kName = "avx512";
    static constexpr int kTile = 12;
    static constexpr bool kPairs = false;
    static constexpr int streams(int m) { return m <= 3 ? 4 : 2; }
    static constexpr int kOffset = 128;  // the integer product takes one unsigned factor

    // The table repeated over all 64 places of a byte permute, so that the index bits above a code do not matter.
    template <int BITS>
    struct Lut {
        __m512i bytes;
        PIPPIN_INLINE Lut make(const int8_t* table) {
            __m512i repeated;
            if constexpr (BITS == 4) {
                repeated = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
            } else {
                int32_t four;
                __builtin_memcpy(&four, table, 4);
                repeated = _mm512_set1_epi32(four);
            }
            return {_mm512_xor_si512(repeated, _mm512_set1_epi8(char(0x80)))};
        }
    };
    template <int BITS>
    PIPPIN_INLINE U lookup(U raw, int f, const Lut<BITS>& lut) {
        __m512i index = _mm512_srli_epi16(reinterpret_cast<__m512i>(raw.v), unsigned(BITS * f));
        return {reinterpret_cast<U::Register>(_mm512_permutexvar_epi8(index, lut.bytes))};
    }
    // As assembly, so that the factor stays in memory, where the instruction spreads it for nothing: given a choice,
    // the compiler loads all factors of a tile into registers and has none left for the sums.
    PIPPIN_INLINE I dot(I sums, U bytes, const int32_t* word) {
        asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums.v) : "v"(bytes.v), "m"(*word));
        return sums;
    }
    PIPPIN_INLINE F fma(F sums, F values, const float* x) {
        asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sums.v) : "v"(values.v), "m"(*x));
        return sums;
    }
    PIPPIN_INLINE F fma(F sums, F a, F b) { return {_mm512_fmadd_ps(a.v, b.v, sums.v)}; }
    PIPPIN_INLINE I dot_rows(U codes, U x) {
        __m512i shifted = _mm512_xor_si512(reinterpret_cast<__m512i>(codes.v), _mm512_set1_epi8(char(0x80)));
        return {reinterpret_cast<I::Register>(_mm512_dpbusd_epi32(_mm512_setzero_si512(), shifted, reinterpret_cast<__m512i>(x.v)))};
    }

    // Sixteen floats are one register too, and the permute reads the low four bits of each index only.
    template <int BITS>
    struct FloatLut {
        __m512 values;
        PIPPIN_INLINE FloatLut make(const int8_t* table) {
            __m128i bytes;
            if constexpr (BITS == 4) {
                bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
            } else {
                int32_t four;
                __builtin_memcpy(&four, table, 4);
                bytes = _mm_set1_epi32(four);
            }
            return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
        }
    };
    template <int BITS>
    PIPPIN_INLINE F value(U raw, int f, int j, const FloatLut<BITS>& lut) {
        __m512i index = _mm512_srli_epi32(reinterpret_cast<__m512i>(raw.v), unsigned(8 * j + BITS * f));
        return {_mm512_permutexvar_ps(index, lut.values)};
    }

    PIPPIN_INLINE void to_bytes(I whole, int8_t* p) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(whole.v)));
    }
    PIPPIN_INLINE F from_int8(const int8_t* p) {
        return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
    }
    PIPPIN_INLINE F from_bf16(const uint16_t* p) {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
    }
    PIPPIN_INLINE F from_half(const uint16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
};

#include "kernels_body.h"

const Kernels& table() { return kTable; }

}  // namespace pippin::avx512
