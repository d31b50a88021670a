// What a head's step does beside its matrix products, in one pass over memory each; float32 or
// bfloat16 rows, arithmetic in float32. `calls.py` says what the arguments are.
//
// A thread takes whole rows, and a row's sum is made in one order, so that results do not depend on
// the number of threads. Loops are vectorised by the compiler (omp simd), which fuses no operations
// but those that say fma.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct bfloat16 {
    std::uint16_t bits;  // the upper half of a float32's
};

template <class To, class From>
inline To same_bits(From from) {
    To to;
    static_assert(sizeof to == sizeof from, "");
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float widened(float x) { return x; }
inline float widened(bfloat16 x) { return same_bits<float>(std::uint32_t(x.bits) << 16); }

inline void put_nearest(float& place, float x) { place = x; }
inline void put_nearest(bfloat16& place, float x) {
    const std::uint32_t bits = same_bits<std::uint32_t>(x);
    const std::uint32_t to_even = bits + 0x7FFF + ((bits >> 16) & 1);
    place.bits = std::uint16_t((x == x ? to_even : bits | 0x400000) >> 16);  // NaN stays NaN
}

// Stochastic rounding with the bits of centers/rounding.py: 16 of word * column below the cut.
inline void put_rounded(float& place, float x, std::uint32_t, std::uint32_t) { place = x; }
inline void put_rounded(bfloat16& place, float x, std::uint32_t word, std::uint32_t column) {
    const float largest = 3.3895313892515355e38f;  // of bfloat16
    x = x > largest ? largest : x;
    x = x < -largest ? -largest : x;
    const std::uint32_t bits = same_bits<std::uint32_t>(x) + ((word * column) >> 16);
    place.bits = x == x ? std::uint16_t(bits >> 16) : 0x7FC0;  // NaN stays NaN
}

// 2^x within 3e-7 of itself; 0 below the smallest normal float32, NaN for NaN. x = n + f with f in
// [-1/2, 1/2]; 2^f is its Taylor polynomial, ln(2)^k / k!, whose first term left out is 1.6e-8.
inline float exp2_of(float x) {
    float bounded = x < -126.0f ? -126.0f : x;
    bounded = bounded > 127.0f ? 127.0f : bounded;
    const float n = std::nearbyint(bounded);
    const float f = bounded - n;
    float power = 1.5403530e-4f;
    power = std::fma(power, f, 1.3333558e-3f);
    power = std::fma(power, f, 9.6181291e-3f);
    power = std::fma(power, f, 5.5504109e-2f);
    power = std::fma(power, f, 2.4022651e-1f);
    power = std::fma(power, f, 6.9314718e-1f);
    power = std::fma(power, f, 1.0f);
    const float result = power * same_bits<float>((std::int32_t(n) + 127) << 23);
    return x < -126.0f ? 0.0f : result;
}

template <class T>
void inverse_lengths(const T* rows, float* inverse, long num_rows, long dim, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < num_rows; ++i) {
        const T* row = rows + i * dim;
        float square = 0.0f;
#pragma omp simd reduction(+ : square)
        for (long k = 0; k < dim; ++k) square = std::fma(widened(row[k]), widened(row[k]), square);
        const float length = std::sqrt(square);
        inverse[i] = length > 1.17549435e-38f ? 1.0f / length : 0.0f;
    }
}

// Places [start, stop) of a sample's logits become E / |w|; returns the sum of E.
template <class T>
float exponentials(T* values, const float* inverse, float shift, long start, long stop) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (long j = start; j < stop; ++j) {
        const float e = exp2_of(widened(values[j]) * inverse[j] - shift);
        sum += e;
        put_nearest(values[j], e * inverse[j]);
    }
    return sum;
}

template <class T>
void numerators(T* values, const float* inverse, const std::int64_t* own, const float* shift,
                float* sums, long batch, long num_rows, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < batch; ++i) {
        T* row = values + i * num_rows;
        const float subtracted = shift ? shift[i] : 0.0f;
        const bool is_here = own[i] >= 0 && own[i] < num_rows;
        const long before = is_here ? own[i] : num_rows;
        sums[i] = exponentials(row, inverse, subtracted, 0, before);
        if (is_here) {
            put_nearest(row[before], 0.0f);
            sums[i] += exponentials(row, inverse, subtracted, before + 1, num_rows);
        }
    }
}

// `tangent` may be `gradient` itself.
template <class G, class T>
void tangent_part(const G* gradient, const T* rows, const float* inverse, float* tangent,
                  long num_rows, long dim, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < num_rows; ++i) {
        const G* g = gradient + i * dim;
        const T* w = rows + i * dim;
        float* t = tangent + i * dim;
        float radial = 0.0f;
#pragma omp simd reduction(+ : radial)
        for (long k = 0; k < dim; ++k) radial = std::fma(widened(g[k]), widened(w[k]), radial);
        radial *= inverse[i] * inverse[i];
#pragma omp simd
        for (long k = 0; k < dim; ++k) t[k] = std::fma(-radial, widened(w[k]), widened(g[k]));
    }
}

// Words and columns of the rounding; of float32 rows they are null and count as 0.
struct Noise {
    const std::uint32_t *rows, *velocity, *columns;
};

// Rounded after each operation as torch does it, add with alpha being one: the same bits.
template <class T>
void update(T* rows, T* velocity, const float* gradient, const std::int64_t* ids, long num_ids,
            long dim, float factor, float lr, float momentum, float weight_decay, Noise noise,
            int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < num_ids; ++i) {
        T* w = rows + ids[i] * dim;
        T* m = velocity ? velocity + ids[i] * dim : nullptr;
        const float* g = gradient + i * dim;
        const std::uint32_t row_word = noise.rows ? noise.rows[i] : 0;
        const std::uint32_t velocity_word = noise.velocity ? noise.velocity[i] : 0;
#pragma omp simd
        for (long k = 0; k < dim; ++k) {
            const std::uint32_t column = noise.columns ? noise.columns[k] : 0;
            const float now = widened(w[k]);
            const float scaled = g[k] * factor;
            float step = std::fma(weight_decay, now, scaled);
            if (m) {
                const float kept = momentum * widened(m[k]);
                step = kept + step;
                put_rounded(m[k], step, velocity_word, column);
            }
            put_rounded(w[k], std::fma(-lr, step, now), row_word, column);
        }
    }
}

}  // namespace

#define FOR_ROWS_OF(T, NAME)                                                                      \
    extern "C" void inverse_lengths_##NAME(const T* rows, float* inverse, long num_rows,          \
                                           long dim, int threads) {                               \
        inverse_lengths(rows, inverse, num_rows, dim, threads);                                   \
    }                                                                                             \
    extern "C" void numerators_##NAME(T* values, const float* inverse, const std::int64_t* own,   \
                                      const float* shift, float* sums, long batch, long num_rows, \
                                      int threads) {                                              \
        numerators(values, inverse, own, shift, sums, batch, num_rows, threads);                  \
    }                                                                                             \
    extern "C" void update_##NAME(T* rows, T* velocity, const float* gradient,                    \
                                  const std::int64_t* ids, long num_ids, long dim, float factor,  \
                                  float lr, float momentum, float weight_decay,                   \
                                  const std::uint32_t* row_words,                                 \
                                  const std::uint32_t* velocity_words,                            \
                                  const std::uint32_t* columns, int threads) {                    \
        update(rows, velocity, gradient, ids, num_ids, dim, factor, lr, momentum, weight_decay,   \
               Noise{row_words, velocity_words, columns}, threads);                               \
    }

#define FOR_GRADIENTS_AND_ROWS_OF(G, T, NAMES)                                                    \
    extern "C" void tangent_part_##NAMES(const G* gradient, const T* rows, const float* inverse,  \
                                         float* tangent, long num_rows, long dim, int threads) {  \
        tangent_part(gradient, rows, inverse, tangent, num_rows, dim, threads);                   \
    }

FOR_ROWS_OF(float, float32)
FOR_ROWS_OF(bfloat16, bfloat16)
FOR_GRADIENTS_AND_ROWS_OF(float, float, float32_float32)
FOR_GRADIENTS_AND_ROWS_OF(float, bfloat16, float32_bfloat16)
FOR_GRADIENTS_AND_ROWS_OF(bfloat16, float, bfloat16_float32)
FOR_GRADIENTS_AND_ROWS_OF(bfloat16, bfloat16, bfloat16_bfloat16)
