// The parts of QuartzNet that PyTorch does slowly on a CPU: the depthwise convolution with both of its gradients, and
// BatchNorm joined with the residual sum, ReLU and mask; dropout. `cpu.py` compiles this file and calls it.
//
// Everything is (batch, frames, channels), contiguous, in float32 or bfloat16; sums are kept in float32 or better.
// Vectors are the compiler's own, so one source serves AVX-512, AVX2 and others. Results do not depend on the number
// of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
constexpr int TILE = 24;  // accumulators: with four factors and a row they fill the 32 registers
#else
constexpr int LANES = 8;
constexpr int TILE = 10;
#endif
constexpr int GROUP = 4;           // factors that share each row that is loaded
constexpr int STRIPE = 2 * LANES;  // channels of one task: at least a cache line of bfloat16
constexpr int LINE = 64;            // bytes of a cache line
constexpr int64_t CHUNK = 64;      // rows whose sums are float32, before they are added in double

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

struct bfloat16 {
    uint16_t bits;
};

inline Vector load(const float* from) {
    Vector values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline Vector load(const bfloat16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Vector values;
    std::memcpy(&values, &words, sizeof values);
    return values;
}

inline void store(float* to, Vector values) { std::memcpy(to, &values, sizeof values); }

// The bits of the nearest bfloat16, ties to even; a NaN stays one.
inline Words rounded_bits(Vector values) {
    Words words;
    std::memcpy(&words, &values, sizeof words);
    const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
    return values == values ? rounded : (words >> 16) | 0x40;
}

inline void store(bfloat16* to, Vector values) {
    const Halves halves = __builtin_convertvector(rounded_bits(values), Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// The first `width` of a vector's lanes, zero in the others.
template <class T>
Vector load(const T* from, int64_t width) {
    if (width >= LANES) return load(from);
    T padded[LANES] = {};
    std::copy(from, from + width, padded);
    return load(padded);
}

template <class T>
void store(T* to, Vector values, int64_t width) {
    if (width >= LANES) return store(to, values);
    T padded[LANES];
    store(padded, values);
    std::copy(padded, padded + width, to);
}

int64_t divided_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// --- depthwise convolution -----------------------------------------------------------------------------------------

struct Free {
    void operator()(float* memory) const { std::free(memory); }
};

// Rows of one vector each, aligned to cache lines; grows and is kept by its thread.
class Rows {
public:
    float* of(int64_t count) {
        if (count > capacity_) {
            capacity_ = count + count / 2;
            const size_t bytes = divided_up(capacity_ * sizeof(Vector), 64) * 64;
            memory_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
        }
        return memory_.get();
    }

private:
    std::unique_ptr<float, Free> memory_;
    int64_t capacity_ = 0;
};

// How the sums are made. Cells of one vector hold one float32 frame each, or two neighbouring bfloat16 frames.
struct Single {
    static constexpr int FRAMES = 1;
    static Vector multiply_add(Vector sum, Vector cell, Vector factor) { return sum + cell * factor; }
};

#ifdef __AVX512BF16__
struct Paired {
    static constexpr int FRAMES = 2;
    static Vector multiply_add(Vector sum, Vector cell, Vector factor) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)cell, (__m512bh)factor);
    }
};
template <class T>
using Arithmetic = std::conditional_t<std::is_same_v<T, bfloat16>, Paired, Single>;
#else
template <class T>
using Arithmetic = Single;
#endif

// Frames that `correlate` takes in one turn; it is given a multiple.
template <class A>
constexpr int64_t TURN = GROUP * A::FRAMES;

// sums[r] += sum over i < count of frames[r + i] * factors[i], each cell r standing for frame r and those it pairs.
template <class A>
inline void correlate(const float* cells, const float* factors, int64_t count, Vector (&sums)[TILE]) {
    for (int64_t i = 0; i < count; i += TURN<A>, cells += TURN<A> * LANES, factors += TURN<A> * LANES) {
        Vector factor[GROUP];
        for (int g = 0; g < GROUP; ++g) factor[g] = load(factors + g * A::FRAMES * LANES);
#pragma GCC unroll 40
        for (int r = 0; r < TILE + (GROUP - 1) * A::FRAMES; ++r) {
            const Vector cell = load(cells + r * LANES);
#pragma GCC unroll 8
            for (int g = 0; g < GROUP; ++g) {
                const int s = r - g * A::FRAMES;
                if (s >= 0 && s < TILE) sums[s] = A::multiply_add(sums[s], cell, factor[g]);
            }
        }
    }
}

// The shape of a convolution that keeps its frames in place; `stride` or `dilation` is 1.
struct Convolution {
    int64_t batch, frames, frames_after, channels, kernel, stride, dilation;

    // A stride deals the frames out to as many planes, each with its own taps; a dilation to as many planes, each
    // with its own outputs. Within a plane the convolution is plain.
    int64_t planes() const { return std::max(stride, dilation); }
    int64_t reach() const { return dilation * (kernel - 1) / 2; }
    int64_t taps(int64_t plane) const { return stride == 1 ? kernel : divided_up(kernel - plane, stride); }
    int64_t outputs(int64_t plane, int64_t end_after) const {
        return stride > 1 ? end_after : end_after <= plane ? 0 : divided_up(end_after - plane, dilation);
    }
    int64_t end_after(int64_t end) const { return end == 0 ? 0 : (end - 1) / stride + 1; }
};

// Cells of the frames `first`, `first` + `step`, ... of one utterance, zero outside of it.
template <class A, class T>
void gather(const T* frames, int64_t end, int64_t channels, int64_t width, int64_t first, int64_t step, int64_t count,
            float* cells) {
    const auto at = [&](int64_t frame) {
        return frame >= 0 && frame < end ? load(frames + frame * channels, width) : Vector{};
    };
    if constexpr (A::FRAMES == 1) {
        for (int64_t i = 0; i < count; ++i) store(cells + i * LANES, at(first + i * step));
    } else {
        Words earlier = rounded_bits(at(first));
        for (int64_t i = 0; i < count; ++i) {
            const Words later = rounded_bits(at(first + (i + 1) * step));
            const Words pair = earlier | (later << 16);
            std::memcpy(cells + i * LANES, &pair, sizeof pair);
            earlier = later;
        }
    }
}

// `weight` is (kernel, channels).
template <class T>
void depthwise(const Convolution& shape, const T* frames, const float* weight, const int64_t* ends, T* output,
               int threads) {
    using A = Arithmetic<T>;
    const int64_t channels = shape.channels;
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(threads)
    for (int64_t utterance = 0; utterance < shape.batch; ++utterance) {
        for (int64_t stripe = 0; stripe < channels; stripe += STRIPE) {
            static thread_local Rows row_memory, factor_memory;
            const int64_t end = ends[utterance], end_after = shape.end_after(end);
            const int64_t most_rows = divided_up(end_after, TILE) * TILE + TILE + shape.kernel + 2 * TURN<A>;
            const int64_t most_taps = shape.kernel + TURN<A>;
            float* rows = row_memory.of(shape.planes() * most_rows);
            float* factors = factor_memory.of(shape.planes() * most_taps);
            const T* from = frames + utterance * shape.frames * channels;
            T* to = output + utterance * shape.frames_after * channels;

            for (int64_t c = stripe; c < std::min(stripe + STRIPE, channels); c += LANES) {
                const int64_t width = std::min<int64_t>(LANES, channels - c);
                for (int64_t plane = 0; plane < shape.planes(); ++plane) {
                    gather<A>(from + c, end, channels, width, plane - shape.reach(), shape.planes(), most_rows,
                           rows + plane * most_rows * LANES);
                    const int64_t first_tap = shape.stride == 1 ? 0 : plane;
                    gather<A>(weight + c, shape.kernel, channels, width, first_tap, shape.stride, most_taps,
                           factors + plane * most_taps * LANES);
                }
                const int64_t output_planes = shape.dilation, summed_planes = shape.stride;
                for (int64_t plane = 0; plane < output_planes; ++plane) {
                    const int64_t outputs = shape.outputs(plane, end_after);
                    for (int64_t first = 0; first < outputs; first += TILE) {
                        Vector sums[TILE] = {};
                        for (int64_t summed = plane; summed < plane + summed_planes; ++summed)
                            correlate<A>(rows + (summed * most_rows + first) * LANES,
                                         factors + summed * most_taps * LANES,
                                         divided_up(shape.taps(summed), TURN<A>) * TURN<A>, sums);
                        for (int64_t r = 0; r < std::min<int64_t>(TILE, outputs - first); ++r) {
                            const int64_t frame = plane + (first + r) * shape.dilation;
                            store(to + frame * channels + c, sums[r], width);
                            // The next channels' lines are under way while these are multiplied.
                            __builtin_prefetch(from + frame * shape.stride * channels + c + LINE / sizeof(T));
                            __builtin_prefetch(to + frame * channels + c + LINE / sizeof(T), 1);
                        }
                    }
                }
            }
            const int64_t rest = std::min<int64_t>(STRIPE, channels - stripe);
            for (int64_t frame = end_after; frame < shape.frames_after; ++frame)
                std::memset(to + frame * channels + stripe, 0, rest * sizeof(T));
        }
    }
}

// The gradient of `weight` (kernel, channels), float32: taps and outputs change places in the sums.
template <class T>
void depthwise_weight_gradient(const Convolution& shape, const T* frames, const T* gradient, const int64_t* ends,
                               float* weight_gradient, int threads) {
    using A = Arithmetic<T>;
    const int64_t channels = shape.channels;
    const int64_t most_taps = divided_up(shape.kernel, TILE) * TILE;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t c = 0; c < channels; c += LANES) {
        static thread_local Rows row_memory, factor_memory, total_memory;
        const int64_t width = std::min<int64_t>(LANES, channels - c);
        float* totals = total_memory.of(shape.planes() * most_taps);
        std::fill_n(totals, shape.planes() * most_taps * LANES, 0.0f);
        for (int64_t utterance = 0; utterance < shape.batch; ++utterance) {
            const int64_t end = ends[utterance], end_after = shape.end_after(end);
            const T* from = frames + utterance * shape.frames * channels + c;
            const T* upstream = gradient + utterance * shape.frames_after * channels + c;
            for (int64_t plane = 0; plane < shape.planes(); ++plane) {
                const int64_t outputs = shape.outputs(plane, end_after);
                const int64_t count = divided_up(outputs, TURN<A>) * TURN<A>;
                if (count == 0) continue;
                float* rows = row_memory.of(count + most_taps + TURN<A>);
                float* factors = factor_memory.of(count);
                gather<A>(from, end, channels, width, plane - shape.reach(), shape.planes(), count + most_taps + TURN<A>,
                       rows);
                const int64_t first_output = shape.stride == 1 ? plane : 0;
                gather<A>(upstream, end_after, channels, width, first_output, shape.dilation, count, factors);
                for (int64_t tap = 0; tap < shape.taps(plane); tap += TILE) {
                    Vector sums[TILE] = {};
                    correlate<A>(rows + tap * LANES, factors, count, sums);
                    for (int r = 0; r < TILE; ++r) {
                        float* total = totals + (plane * most_taps + tap + r) * LANES;
                        store(total, load(total) + sums[r]);
                    }
                }
            }
        }
        for (int64_t plane = 0; plane < shape.planes(); ++plane) {
            for (int64_t i = 0; i < shape.taps(plane); ++i) {
                const int64_t tap = shape.stride == 1 ? i : plane + i * shape.stride;
                float* to = weight_gradient + tap * channels + c;
                // With a dilation every plane holds a share of every tap.
                const Vector before = shape.dilation > 1 && plane > 0 ? load(to, width) : Vector{};
                store(to, before + load(totals + (plane * most_taps + i) * LANES), width);
            }
        }
    }
}

// --- BatchNorm, residual sum, ReLU and mask ------------------------------------------------------------------------

template <class F>
void each_row_and_vector(int64_t first, int64_t rows, int64_t channels, const F& function) {
    for (int64_t row = first; row < first + rows; ++row) {
        int64_t c = 0;
        for (; c + LANES <= channels; c += LANES) function(row, c, static_cast<int64_t>(LANES));
        if (c < channels) function(row, c, channels - c);
    }
}

// Mean and biased variance (channels,) of (count, channels): exact within a chunk, chunks joined in double (Chan).
template <class T>
void statistics(const T* frames, int64_t count, int64_t channels, float* mean, float* variance, int threads) {
    const int64_t chunks = divided_up(count, CHUNK);
    std::vector<float> means(chunks * channels), squares(chunks * channels);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * CHUNK, rows = std::min(CHUNK, count - first);
        const float share = 1.0f / static_cast<float>(rows);
        float* centre = means.data() + chunk * channels;
        float* square = squares.data() + chunk * channels;
        each_row_and_vector(first, rows, channels, [&](int64_t row, int64_t c, int64_t width) {
            store(centre + c, load(centre + c, width) + load(frames + row * channels + c, width), width);
        });
        for (int64_t c = 0; c < channels; ++c) centre[c] *= share;
        each_row_and_vector(first, rows, channels, [&](int64_t row, int64_t c, int64_t width) {
            const Vector deviation = load(frames + row * channels + c, width) - load(centre + c, width);
            store(square + c, load(square + c, width) + deviation * deviation, width);
        });
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t c = 0; c < channels; ++c) {
        double total = 0, centre = 0, square = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const double rows = static_cast<double>(std::min(CHUNK, count - chunk * CHUNK));
            const double apart = means[chunk * channels + c] - centre;
            square += squares[chunk * channels + c] + apart * apart * total * rows / (total + rows);
            centre += apart * rows / (total + rows);
            total += rows;
        }
        mean[c] = static_cast<float>(centre);
        variance[c] = static_cast<float>(square / total);
    }
}

// output = frames * scale + shift + residual; where `activate`, rectified and zero past the ends.
template <class T>
void scale_shift_rectify(const T* frames, const T* residual, const float* scale, const float* shift,
                         const int64_t* ends, int64_t batch, int64_t num_frames, int64_t channels, bool activate,
                         T* output, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * num_frames; ++row) {
        T* to = output + row * channels;
        if (activate && row % num_frames >= ends[row / num_frames]) {
            std::memset(to, 0, channels * sizeof(T));
            continue;
        }
        each_row_and_vector(row, 1, channels, [&](int64_t, int64_t c, int64_t width) {
            Vector value = load(frames + row * channels + c, width);
            if (scale) value = value * load(scale + c, width) + load(shift + c, width);
            if (residual) value += load(residual + row * channels + c, width);
            if (activate) value = value < 0.0f ? Vector{} : value;  // a NaN passes
            store(to + c, value, width);
        });
    }
}

// --- dropout --------------------------------------------------------------------------------------------------------

inline uint64_t mixed(uint64_t bits) {  // SplitMix64, Steele and others 2014
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return bits ^ (bits >> 31);
}

// Zero where a number below `dropped` is drawn, of 2^32; the others times `scale`. In place. What is drawn is a hash of
// the seed and the place (MurmurHash3's last step), so threads need nothing of each other.
template <class T>
void drop(T* frames, int64_t rows, int64_t channels, uint32_t dropped, float scale, uint64_t seed, int threads) {
    Words lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; ++row) {
        const uint64_t of_row = mixed(seed + row * 0x9e3779b97f4a7c15u);
        const uint32_t low = static_cast<uint32_t>(of_row), high = static_cast<uint32_t>(of_row >> 32);
        each_row_and_vector(row, 1, channels, [&](int64_t, int64_t c, int64_t width) {
            Words drawn = (lane + static_cast<uint32_t>(c)) * 0x9e3779b9u + low;
            drawn = (drawn ^ (drawn >> 16)) * 0x85ebca6bu;
            drawn = (drawn ^ (drawn >> 13) ^ high) * 0xc2b2ae35u;
            drawn ^= drawn >> 16;
            const Vector value = load(frames + row * channels + c, width) * scale;
            store(frames + row * channels + c, drawn >= dropped ? value : Vector{}, width);
        });
    }
}

// The gradient before the ReLU: nothing where the output is not positive. `output` is null without a ReLU.
template <class T>
inline Vector rectified(const T* gradient, const T* output, int64_t at, int64_t width) {
    const Vector value = load(gradient + at, width);
    return output ? (load(output + at, width) > 0.0f ? value : Vector{}) : value;
}

template <class T>
void batchnorm_backward(const T* gradient, const T* output, const T* frames, const float* weight, const float* mean,
                        const float* inverse_std, int64_t count, int64_t channels, T* frames_gradient,
                        float* weight_gradient, float* bias_gradient, T* residual_gradient, int threads) {
    const int64_t chunks = divided_up(count, CHUNK);
    std::vector<float> sums(chunks * channels), products(chunks * channels);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * CHUNK, rows = std::min(CHUNK, count - first);
        float* sum = sums.data() + chunk * channels;
        float* product = products.data() + chunk * channels;
        each_row_and_vector(first, rows, channels, [&](int64_t row, int64_t c, int64_t width) {
            const int64_t at = row * channels + c;
            const Vector value = rectified(gradient, output, at, width);
            const Vector centred = load(frames + at, width) - load(mean + c, width);
            if (residual_gradient) store(residual_gradient + at, value, width);
            store(sum + c, load(sum + c, width) + value, width);
            store(product + c, load(product + c, width) + value * centred, width);
        });
    }
    std::vector<float> from_gradient(channels), from_frames(channels), constant(channels);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0, product = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            sum += sums[chunk * channels + c];
            product += static_cast<double>(products[chunk * channels + c]) * inverse_std[c];
        }
        bias_gradient[c] = static_cast<float>(sum);
        weight_gradient[c] = static_cast<float>(product);
        const double scale = static_cast<double>(weight[c]) * inverse_std[c];
        const double slope = scale * inverse_std[c] * product / static_cast<double>(count);
        from_gradient[c] = static_cast<float>(scale);
        from_frames[c] = static_cast<float>(-slope);
        constant[c] = static_cast<float>(-scale * sum / static_cast<double>(count));
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t first = chunk * CHUNK, rows = std::min(CHUNK, count - first);
        each_row_and_vector(first, rows, channels, [&](int64_t row, int64_t c, int64_t width) {
            const int64_t at = row * channels + c;
            const Vector centred = load(frames + at, width) - load(mean + c, width);
            store(frames_gradient + at,
                  rectified(gradient, output, at, width) * load(from_gradient.data() + c, width) +
                      centred * load(from_frames.data() + c, width) + load(constant.data() + c, width),
                  width);
        });
    }
}

template <class F>
void in_precision(int is_bfloat16, const F& function) {
    if (is_bfloat16)
        function(bfloat16{});
    else
        function(float{});
}

}  // namespace

// `cpu.py` holds the same signatures. Pointers to frames are to float32 or, where `is_bfloat16`, to bfloat16.
extern "C" {

void cuarzo_depthwise(int is_bfloat16, const void* frames, const float* weight, const int64_t* ends, int64_t batch,
                      int64_t num_frames, int64_t num_frames_after, int64_t channels, int64_t kernel, int64_t stride,
                      int64_t dilation, void* output, int threads) {
    const Convolution shape{batch, num_frames, num_frames_after, channels, kernel, stride, dilation};
    in_precision(is_bfloat16, [&](auto type) {
        using T = decltype(type);
        depthwise(shape, static_cast<const T*>(frames), weight, ends, static_cast<T*>(output), threads);
    });
}

void cuarzo_depthwise_weight_gradient(int is_bfloat16, const void* frames, const void* gradient, const int64_t* ends,
                                      int64_t batch, int64_t num_frames, int64_t num_frames_after, int64_t channels,
                                      int64_t kernel, int64_t stride, int64_t dilation, float* weight_gradient,
                                      int threads) {
    const Convolution shape{batch, num_frames, num_frames_after, channels, kernel, stride, dilation};
    in_precision(is_bfloat16, [&](auto type) {
        using T = decltype(type);
        depthwise_weight_gradient(shape, static_cast<const T*>(frames), static_cast<const T*>(gradient), ends,
                                  weight_gradient, threads);
    });
}

void cuarzo_statistics(int is_bfloat16, const void* frames, int64_t count, int64_t channels, float* mean,
                       float* variance, int threads) {
    in_precision(is_bfloat16, [&](auto type) {
        statistics(static_cast<const decltype(type)*>(frames), count, channels, mean, variance, threads);
    });
}

void cuarzo_scale_shift_rectify(int is_bfloat16, const void* frames, const void* residual, const float* scale,
                                const float* shift, const int64_t* ends, int64_t batch, int64_t num_frames,
                                int64_t channels, int activate, void* output, int threads) {
    in_precision(is_bfloat16, [&](auto type) {
        using T = decltype(type);
        scale_shift_rectify(static_cast<const T*>(frames), static_cast<const T*>(residual), scale, shift, ends, batch,
                            num_frames, channels, activate != 0, static_cast<T*>(output), threads);
    });
}

void cuarzo_drop(int is_bfloat16, void* frames, int64_t rows, int64_t channels, int64_t dropped, float scale,
                 int64_t seed, int threads) {
    in_precision(is_bfloat16, [&](auto type) {
        drop(static_cast<decltype(type)*>(frames), rows, channels, static_cast<uint32_t>(dropped), scale,
             static_cast<uint64_t>(seed), threads);
    });
}

void cuarzo_batchnorm_backward(int is_bfloat16, const void* gradient, const void* output, const void* frames,
                               const float* weight, const float* mean, const float* inverse_std, int64_t count,
                               int64_t channels, void* frames_gradient, float* weight_gradient, float* bias_gradient,
                               void* residual_gradient, int threads) {
    in_precision(is_bfloat16, [&](auto type) {
        using T = decltype(type);
        batchnorm_backward(static_cast<const T*>(gradient), static_cast<const T*>(output),
                           static_cast<const T*>(frames), weight, mean, inverse_std, count, channels,
                           static_cast<T*>(frames_gradient), weight_gradient, bias_gradient,
                           static_cast<T*>(residual_gradient), threads);
    });
}
}
