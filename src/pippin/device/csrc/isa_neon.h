// Sixteen lanes with NEON and the dot product. Included by the files of ARM kernels inside their own namespace, after vec.h.

struct Neon {
    static constexpr int streams(int m) { return m == 1 ? 2 : 1; }
    static constexpr int kOffset = 0;

    using UPart = Vec<uint32_t, 4>::Register;
    using IPart = Vec<int32_t, 4>::Register;
    using FPart = Vec<float, 4>::Register;

    template <int BITS>
    struct Lut {
        int8x16_t bytes;
        PIPPIN_INLINE Lut make(const int8_t* table) {
            if constexpr (BITS == 4) return {vld1q_s8(table)};
            int32_t four;
            __builtin_memcpy(&four, table, 4);
            return {vreinterpretq_s8_s32(vdupq_n_s32(four))};
        }
    };
    template <int BITS>
    PIPPIN_INLINE int8x16_t look_up(uint8x16_t raw, int f, const Lut<BITS>& lut) {
        uint8x16_t codes = vshlq_u8(raw, vdupq_n_s8(int8_t(-BITS * f)));
        return vqtbl1q_s8(lut.bytes, vandq_u8(codes, vdupq_n_u8((1 << BITS) - 1)));
    }
    template <int BITS>
    PIPPIN_INLINE U lookup(U raw, int f, const Lut<BITS>& lut) {
        return map<U>([&](auto part) { return reinterpret_cast<UPart>(look_up<BITS>(reinterpret_cast<uint8x16_t>(part), f, lut)); }, raw);
    }
    PIPPIN_INLINE F fma(F sums, F a, F b) {
        return map<F>(
            [](auto total, auto x, auto y) {
                return reinterpret_cast<FPart>(vfmaq_f32(reinterpret_cast<float32x4_t>(total), reinterpret_cast<float32x4_t>(x),
                                                         reinterpret_cast<float32x4_t>(y)));
            },
            sums, a, b);
    }
    PIPPIN_INLINE F fma(F sums, F values, const float* x) { return fma(sums, values, splat<F>(*x)); }
    PIPPIN_INLINE I dot(I sums, U bytes, const int32_t* word) {
        int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(*word));
        return map<I>(
            [x](auto total, auto part) {
                return reinterpret_cast<IPart>(vdotq_s32(reinterpret_cast<int32x4_t>(total), reinterpret_cast<int8x16_t>(part), x));
            },
            sums, bytes);
    }
    PIPPIN_INLINE I dot_rows(U codes, U x) {
        return map<I>(
            [](auto a, auto b) {
                return reinterpret_cast<IPart>(
                    vdotq_s32(vdupq_n_s32(0), reinterpret_cast<int8x16_t>(a), reinterpret_cast<int8x16_t>(b)));
            },
            codes, x);
    }

    template <int BITS>
    using FloatLut = Lut<BITS>;
    template <int BITS>
    PIPPIN_INLINE F value(U raw, int f, int j, const Lut<BITS>& lut) {
        I words = bits<I>(lookup<BITS>(raw, f, lut));
        return to_float((words << (24 - 8 * j)) >> 24);
    }

    PIPPIN_INLINE F four_registers(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
        return {{{reinterpret_cast<FPart>(a)}, {reinterpret_cast<FPart>(b)}}, {{reinterpret_cast<FPart>(c)}, {reinterpret_cast<FPart>(d)}}};
    }
    PIPPIN_INLINE void to_bytes(I whole, int8_t* p) {
        int32_t lanes[16];
        store(lanes, whole);
        for (int i = 0; i < 16; ++i) p[i] = int8_t(lanes[i]);
    }
    PIPPIN_INLINE F from_int8(const int8_t* p) {
        int8x16_t bytes = vld1q_s8(p);
        int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
        return four_registers(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                              vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))));
    }
    PIPPIN_INLINE F from_bf16(const uint16_t* p) {
        uint16x8_t low = vld1q_u16(p), high = vld1q_u16(p + 8);
        return four_registers(vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)), vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16)),
                              vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)), vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16)));
    }
    PIPPIN_INLINE F from_half(const uint16_t* p) {
        float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p)), high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
        return four_registers(vcvt_f32_f16(vget_low_f16(low)), vcvt_f32_f16(vget_high_f16(low)), vcvt_f32_f16(vget_low_f16(high)),
                              vcvt_f32_f16(vget_high_f16(high)));
    }
};
