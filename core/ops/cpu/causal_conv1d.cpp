#include "core/ops/causal_conv1d.h"

#include "core/kernels/activation.h"
#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr int64_t kChannels = 64;  // of one tile

template <class T>
void transpose_taps(const Tensor& weight, const Tensor& taps) {
  const int64_t kernel = taps.rows(), channels = taps.cols();
  const T* w = weight.ptr<T>();
  for (int64_t j = 0; j < kernel; ++j)
    for (int64_t c = 0; c < channels; ++c) taps.row<T>(j)[c] = w[c * kernel + j];
}

// Where the inputs of row b lie, with the tail in front; null counts as zero.
template <class T>
struct Inputs {
  const Tensor &x, &initial, &seq_idx;
  StateRef tail;
  int64_t b, seq_len, kernel, channels;

  STRATA_INLINE const T* at(int64_t t) const {
    if (t >= 0) return x.row<T>(b * seq_len + t);
    if (initial) return initial.row<T>((b + 1) * (kernel - 1) + t);
    if (tail) return tail.row<T>(b) + (kernel - 1 + t) * channels;
    return nullptr;
  }
  // The input of time t - lag as token t sees it.
  STRATA_INLINE const T* seen(int64_t t, int64_t lag) const {
    const int64_t from = t - lag;
    if (seq_idx && lag > 0) {
      const int32_t* doc = seq_idx.ptr<int32_t>() + b * seq_len;
      if (doc[from < 0 ? 0 : from] != doc[t]) return nullptr;
    }
    return at(from);
  }
};

// sum[c] = bias + taps . inputs of token t, for the channels [from, from + n)
template <class T>
STRATA_INLINE void pre_activation(const Inputs<T>& in, const T* bias, const Tensor& taps, int64_t t,
                                  int64_t from, int64_t n, T* sum) {
  const int64_t kernel = in.kernel;
  const T* x[4];
  bool all = kernel == 4;
  for (int64_t j = 0; j < 4 && all; ++j) all = (x[j] = in.seen(t, 3 - j)) != nullptr;
  if (all) {
    const T *w0 = taps.row<T>(0) + from, *w1 = taps.row<T>(1) + from, *w2 = taps.row<T>(2) + from,
            *w3 = taps.row<T>(3) + from;
    const T *x0 = x[0] + from, *x1 = x[1] + from, *x2 = x[2] + from, *x3 = x[3] + from;
    if (bias)
      for (int64_t c = 0; c < n; ++c)
        sum[c] = bias[from + c] + w0[c] * x0[c] + w1[c] * x1[c] + w2[c] * x2[c] + w3[c] * x3[c];
    else
      for (int64_t c = 0; c < n; ++c)
        sum[c] = T(0) + w0[c] * x0[c] + w1[c] * x1[c] + w2[c] * x2[c] + w3[c] * x3[c];
    return;
  }
  for (int64_t c = 0; c < n; ++c) sum[c] = bias ? bias[from + c] : T(0);
  for (int64_t j = 0; j < kernel; ++j) {
    const T* xj = in.seen(t, kernel - 1 - j);
    if (!xj) continue;
    const T* w = taps.row<T>(j) + from;
    xj += from;
    for (int64_t c = 0; c < n; ++c) sum[c] += w[c] * xj[c];
  }
}

template <class T>
void replace_tail(const Inputs<T>& in) {
  if (!in.tail) return;
  T* tail = in.tail.template row<T>(in.b);
  const int64_t keep = in.kernel - 1;
  for (int64_t j = 0; j < keep; ++j) {  // upwards: what is read has not been replaced yet
    const T* x = in.seen(in.seq_len - 1, keep - 1 - j);
    T* to = tail + j * in.channels;
    for (int64_t c = 0; c < in.channels; ++c) to[c] = x ? x[c] : T(0);
  }
}

template <class T>
void causal_conv1d_cpu(const CausalConv1dArgs& a, Stream) {
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  const int64_t kernel = a.weight.shape[2];
  transpose_taps<T>(a.weight, a.taps);
  parallel_for(batch * seq_len, grain_for(channels * (2 * kernel + 8 * a.silu)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   const Inputs<T> in{a.x,         a.initial, a.seq_idx, a.tail,
                                      r / seq_len, seq_len,   kernel,    channels};
                   T* y = a.y.row<T>(r);
                   pre_activation(in, a.bias.ptr<T>(), a.taps, r % seq_len, 0, channels, y);
                   if (a.silu)
                     for (int64_t c = 0; c < channels; ++c) y[c] *= sigmoid_of(y[c]);
                 }
               });
  for (int64_t b = 0; b < batch; ++b)
    replace_tail(Inputs<T>{a.x, a.initial, a.seq_idx, a.tail, b, seq_len, kernel, channels});
}

// One tile: tokens [t0, t1) of row b, channels [from, from + n). ds, the gradient of the sum before
// the activation, is computed for the tile and the kernel - 1 tokens after it, which dx needs.
template <class T>
void backward_tile(const CausalConv1dBackwardArgs& a, const Inputs<T>& in, int64_t t0, int64_t t1,
                   int64_t from, int64_t n, T* sums, T* ds) {
  const int64_t kernel = in.kernel, seq_len = in.seq_len, first = in.b * seq_len;
  const int64_t halo = t1 + kernel - 1 < seq_len ? t1 + kernel - 1 : seq_len;
  const T* bias = a.bias.ptr<T>();
  for (int64_t t = t0; t < halo; ++t) {
    const T* dy = a.dy.row<T>(first + t) + from;
    T* s = ds + (t - t0) * kChannels;
    if (!a.silu) {
      for (int64_t c = 0; c < n; ++c) s[c] = dy[c];
      continue;
    }
    pre_activation(in, bias, a.taps, t, from, n, s);
    for (int64_t c = 0; c < n; ++c) s[c] = dy[c] * act_slope<Activation::silu>(s[c]);
  }
  if (sums) {
    T* db = sums + kernel * in.channels + from;
    for (int64_t t = t0; t < t1; ++t) {
      const T* s = ds + (t - t0) * kChannels;
      for (int64_t c = 0; c < n; ++c) db[c] += s[c];
      for (int64_t j = 0; j < kernel; ++j) {
        const T* x = in.seen(t, kernel - 1 - j);
        if (!x) continue;
        T* dw = sums + j * in.channels + from;
        x += from;
        for (int64_t c = 0; c < n; ++c) dw[c] += s[c] * x[c];
      }
    }
  }
  auto gather = [&](int64_t t, T* dx,
                    bool accumulate) {  // dx_t = sum_lag w[kernel-1-lag] ds_{t+lag}
    if (!accumulate)
      for (int64_t c = 0; c < n; ++c) dx[c] = 0;
    for (int64_t lag = t < 0 ? -t : 0; lag < kernel && t + lag < seq_len; ++lag) {
      if (lag > 0 && a.seq_idx) {
        const int32_t* doc = a.seq_idx.ptr<int32_t>() + first;
        if (doc[t < 0 ? 0 : t] != doc[t + lag]) break;
      }
      const T *w = a.taps.row<T>(kernel - 1 - lag) + from, *s = ds + (t + lag - t0) * kChannels;
      for (int64_t c = 0; c < n; ++c) dx[c] += w[c] * s[c];
    }
  };
  if (a.dx.wanted)
    for (int64_t t = t0; t < t1; ++t)
      gather(t, a.dx.grad.row<T>(first + t) + from, a.dx.accumulate);
  if (a.dinitial.wanted && t0 == 0)
    for (int64_t t = 1 - kernel; t < 0; ++t)
      gather(t, a.dinitial.grad.row<T>((in.b + 1) * (kernel - 1) + t) + from,
             a.dinitial.accumulate);
}

template <class T>
void causal_conv1d_backward_cpu(const CausalConv1dBackwardArgs& a, Stream) {
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  const int64_t kernel = a.weight.shape[2];
  const int64_t blocks = (seq_len + kConvTimeBlock - 1) / kConvTimeBlock;
  const int64_t tiles = (channels + kChannels - 1) / kChannels;
  transpose_taps<T>(a.weight, a.taps);
  parallel_for(batch * blocks * tiles, 1, [&](int64_t begin, int64_t end) {
    alignas(64) T ds[(kConvTimeBlock + kConvMaxKernel - 1) * kChannels];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t tile = i % tiles, block = i / tiles % blocks, b = i / tiles / blocks;
      const int64_t from = tile * kChannels, t0 = block * kConvTimeBlock;
      const int64_t n = channels - from < kChannels ? channels - from : kChannels;
      const int64_t t1 = seq_len - t0 < kConvTimeBlock ? seq_len : t0 + kConvTimeBlock;
      T* sums = a.partial ? a.partial.row<T>(b * blocks + block) : nullptr;
      if (sums)
        for (int64_t j = 0; j <= kernel; ++j)
          for (int64_t c = 0; c < n; ++c) sums[j * channels + from + c] = 0;
      const Inputs<T> in{a.x, a.initial, a.seq_idx, {}, b, seq_len, kernel, channels};
      backward_tile(a, in, t0, t1, from, n, sums, ds);
    }
  });
  if (!a.partial) return;
  // Block by block in order; the first row collects.
  T* total = a.partial.row<T>(0);
  for (int64_t block = 1; block < a.partial.rows(); ++block) {
    const T* p = a.partial.row<T>(block);
    for (int64_t i = 0; i < (kernel + 1) * channels; ++i) total[i] += p[i];
  }
  if (a.dweight.wanted) {
    T* dw = a.dweight.grad.ptr<T>();
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = 0; j < kernel; ++j) {
        T& w = dw[c * kernel + j];
        w = (a.dweight.accumulate ? w : T(0)) + total[j * channels + c];
      }
  }
  if (a.dbias.wanted) {
    T* db = a.dbias.grad.ptr<T>();
    for (int64_t c = 0; c < channels; ++c)
      db[c] = (a.dbias.accumulate ? db[c] : T(0)) + total[kernel * channels + c];
  }
}

}  // namespace

STRATA_CPU_KERNEL("causal_conv1d", CausalConv1dArgs, causal_conv1d_cpu)
STRATA_CPU_KERNEL("causal_conv1d_backward", CausalConv1dBackwardArgs, causal_conv1d_backward_cpu)

}  // namespace strata
