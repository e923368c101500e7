// Sixteen lanes on every processor: one register where it is wide enough, else halves of halves.
//
// Included once by each kernels_*.cpp, inside that file's own namespace: the files are compiled for different
// processors, and an inline function that two of them shared could be linked with the wrong instructions.

#if defined(__AVX512F__)
constexpr int kRegister = 64;
#elif defined(__AVX__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif

#define PIPPIN_INLINE static inline __attribute__((always_inline))

template <class T, int N, bool FITS = (N * int(sizeof(T)) <= kRegister)>
struct Vec;

template <class T, int N>
struct Vec<T, N, true> {
    typedef T Register __attribute__((vector_size(N * sizeof(T))));
    typedef T Unaligned __attribute__((vector_size(N * sizeof(T)), aligned(1), may_alias));
    Register v;
};

template <class T, int N>
struct Vec<T, N, false> {
    Vec<T, N / 2> lo, hi;
};

using F = Vec<float, 16>;
using I = Vec<int32_t, 16>;
using U = Vec<uint32_t, 16>;

// Applies `f` to every register of its arguments, and gives back a vector of what it returns.
template <class R, class Fn, class T, int N, class... Rest>
PIPPIN_INLINE R map(Fn f, Vec<T, N, true> a, Rest... rest) {
    return R{f(a.v, rest.v...)};
}
template <class R, class Fn, class T, int N, class... Rest>
PIPPIN_INLINE R map(Fn f, Vec<T, N, false> a, Rest... rest) {
    return R{map<decltype(R::lo)>(f, a.lo, rest.lo...), map<decltype(R::lo)>(f, a.hi, rest.hi...)};
}

template <class V, class T>
PIPPIN_INLINE V load(const T* p) {
    if constexpr (sizeof(V) <= kRegister) {
        return V{typename V::Register(*reinterpret_cast<const typename V::Unaligned*>(p))};
    } else {
        return V{load<decltype(V::lo)>(p), load<decltype(V::hi)>(reinterpret_cast<const char*>(p) + sizeof(V) / 2)};
    }
}

template <class T, int N, bool B>
PIPPIN_INLINE void store(void* p, Vec<T, N, B> a) {
    if constexpr (B) {
        *reinterpret_cast<typename Vec<T, N, B>::Unaligned*>(p) = a.v;
    } else {
        store(p, a.lo);
        store(static_cast<char*>(p) + sizeof(a) / 2, a.hi);
    }
}

template <class V, class T>
PIPPIN_INLINE V splat(T x) {
    if constexpr (sizeof(V) <= kRegister) {
        return V{x - typename V::Register{}};  // a scalar beside a vector is spread over it
    } else {
        return V{splat<decltype(V::lo)>(x), splat<decltype(V::hi)>(x)};
    }
}

#define PIPPIN_OPERATOR(op)                                        \
    template <class T, int N, bool B>                              \
    PIPPIN_INLINE Vec<T, N, B> operator op(Vec<T, N, B> a, Vec<T, N, B> b) { \
        return map<Vec<T, N, B>>([](auto x, auto y) { return x op y; }, a, b); \
    }
PIPPIN_OPERATOR(+)
PIPPIN_OPERATOR(-)
PIPPIN_OPERATOR(*)
PIPPIN_OPERATOR(/)
#undef PIPPIN_OPERATOR

template <class T, int N, bool B>
PIPPIN_INLINE Vec<T, N, B> operator<<(Vec<T, N, B> a, int n) {
    return map<Vec<T, N, B>>([n](auto x) { return x << n; }, a);
}
template <class T, int N, bool B>
PIPPIN_INLINE Vec<T, N, B> operator>>(Vec<T, N, B> a, int n) {
    return map<Vec<T, N, B>>([n](auto x) { return x >> n; }, a);
}
template <class T, int N, bool B>
PIPPIN_INLINE Vec<T, N, B> larger(Vec<T, N, B> a, Vec<T, N, B> b) {
    return map<Vec<T, N, B>>([](auto x, auto y) { return x > y ? x : y; }, a, b);
}
template <class T, int N, bool B>
PIPPIN_INLINE Vec<T, N, B> smaller(Vec<T, N, B> a, Vec<T, N, B> b) {
    return map<Vec<T, N, B>>([](auto x, auto y) { return x < y ? x : y; }, a, b);
}

PIPPIN_INLINE F to_float(I a) {
    return map<F>([](auto x) { return __builtin_convertvector(x, typename Vec<float, sizeof(x) / 4>::Register); }, a);
}
PIPPIN_INLINE I to_int(F a) {  // towards zero
    return map<I>([](auto x) { return __builtin_convertvector(x, typename Vec<int32_t, sizeof(x) / 4>::Register); }, a);
}
PIPPIN_INLINE F magnitude(F a) { return larger(a, F{} - a); }

template <class To, class From>
PIPPIN_INLINE To bits(From a) {
    static_assert(sizeof(To) == sizeof(From));
    To b;
    __builtin_memcpy(&b, &a, sizeof b);
    return b;
}

// Lanes together, halves first, so that every processor adds in the same order.
template <int N>
PIPPIN_INLINE Vec<float, N / 2> fold(Vec<float, N> a, bool high) {
    Vec<float, N / 2> halves[2];
    __builtin_memcpy(halves, &a, sizeof a);
    return halves[high];
}
template <int N, bool B>
PIPPIN_INLINE float sum(Vec<float, N, B> a) {
    if constexpr (N == 4) {
        return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]);
    } else {
        return sum(fold<N>(a, false) + fold<N>(a, true));
    }
}
template <int N, bool B>
PIPPIN_INLINE float maximum(Vec<float, N, B> a) {
    if constexpr (N == 4) {
        float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
        return x > y ? x : y;
    } else {
        return maximum(larger(fold<N>(a, false), fold<N>(a, true)));
    }
}

// e^x, within 2 units in the last place; 1e-38 far below, finite far above (the coefficients are Taylor's to the 7th power).
PIPPIN_INLINE F exponential(F x) {
    x = larger(smaller(x, splat<F>(88.0f)), splat<F>(-87.0f));
    F shifted = x * splat<F>(1.44269504f) + splat<F>(12582912.0f);  // 1.5 * 2^23: the fraction is rounded off
    F whole = shifted - splat<F>(12582912.0f);
    F r = x - whole * splat<F>(0.693359375f) + whole * splat<F>(2.12194440e-4f);
    F p = splat<F>(1.0f / 5040);
    constexpr float c[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
#pragma GCC unroll 8
    for (float each : c) p = p * r + splat<F>(each);
    I exponent = bits<I>(shifted) << 23;
    return bits<F>(bits<I>(p) + exponent);
}
