// 64-bit ARM with the int8 matrix product (Apple M2, Neoverse V1, Cortex-A510 and later): twice the products an instruction.
#include <arm_neon.h>

#include "kernels.h"

namespace pippin::i8mm {

#include "vec.h"
#include "isa_neon.h"

struct Isa : Neon {
    static constexpr const char* kName = "i8mm";
    static constexpr int kTile = 8;
    static constexpr bool kPairs = true;  // `panel` is for an even number of tokens; the dot product serves odd ones

    // As panel_fast for one group, with the same result: of two rows and two tokens, one instruction adds the products of
    // eight inputs. Half of the rows at a time, so that the sums stay in registers.
    template <int BITS, int M>
    static void panel(const Palette& w, int64_t group, const int8_t* x, const float* scale, float* y, int64_t ldy) {
        constexpr int kFields = 8 / BITS, kBlocks = kSpan / (4 * kFields), kPairsOfTokens = M / 2;
        const uint8_t* codes = w.codes + group * w.blocks * kBlockBytes;
        const Lut<BITS> lut = Lut<BITS>::make(w.table + group * (1 << BITS));
        float32x4_t total[M][4] = {};
        const int32_t* words = reinterpret_cast<const int32_t*>(x);
        for (int64_t block = 0; block < w.blocks; block += kBlocks, words += kBlocks * kFields * M, scale += M) {
            const int64_t n = block + kBlocks <= w.blocks ? kBlocks : w.blocks - block;
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                int32x4_t sums[4][kPairsOfTokens] = {};  // of each pair of rows: (row 0, 1) x (token 0, 1)
                for (int64_t b = 0; b < n; ++b) {
                    const uint8_t* from = codes + (block + b) * kBlockBytes + half * 32;
                    const uint8x16_t raw[2] = {vld1q_u8(from), vld1q_u8(from + 16)};
#pragma GCC unroll 2
                    for (int f = 0; f < kFields; f += 2) {
                        int8x16_t rows[4];
#pragma GCC unroll 2
                        for (int i = 0; i < 2; ++i) {
                            const int32x4_t low = vreinterpretq_s32_s8(look_up<BITS>(raw[i], f, lut));
                            const int32x4_t high = vreinterpretq_s32_s8(look_up<BITS>(raw[i], f + 1, lut));
                            rows[2 * i] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
                            rows[2 * i + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
                        }
                        const int32_t* word = words + (b * kFields + f) * M;
#pragma GCC unroll 4
                        for (int pair = 0; pair < kPairsOfTokens; ++pair) {
                            const int32x2_t low = vld1_s32(word + 2 * pair), high = vld1_s32(word + M + 2 * pair);
                            const int8x16_t tokens = vreinterpretq_s8_s32(vcombine_s32(vzip1_s32(low, high), vzip2_s32(low, high)));
#pragma GCC unroll 4
                            for (int i = 0; i < 4; ++i) sums[i][pair] = vmmlaq_s32(sums[i][pair], rows[i], tokens);
                        }
                    }
                }
#pragma GCC unroll 4
                for (int pair = 0; pair < kPairsOfTokens; ++pair) {
#pragma GCC unroll 2
                    for (int i = 0; i < 2; ++i) {
                        const int32x4_t a = sums[2 * i][pair], b = sums[2 * i + 1][pair];
                        float32x4_t& first = total[2 * pair][2 * half + i];
                        float32x4_t& second = total[2 * pair + 1][2 * half + i];
                        first = vfmaq_f32(first, vcvtq_f32_s32(vuzp1q_s32(a, b)), vdupq_n_f32(scale[2 * pair]));
                        second = vfmaq_f32(second, vcvtq_f32_s32(vuzp2q_s32(a, b)), vdupq_n_f32(scale[2 * pair + 1]));
                    }
                }
            }
        }
        for (int m = 0; m < M; ++m)
            for (int i = 0; i < 4; ++i)
                vst1q_f32(y + m * ldy + group * kGroupRows + 4 * i, vmulq_f32(total[m][i], vld1q_f32(w.row_scale + group * kGroupRows + 4 * i)));
    }
};

#include "kernels_body.h"

const Kernels& table() { return kTable; }

}  // namespace pippin::i8mm
