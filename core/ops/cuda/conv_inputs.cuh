// What the kernels of causal_conv1d share: where their inputs lie.
#pragma once

#include "core/kernels/expect.cuh"
#include "core/ops/causal_conv1d.h"
#include "core/ops/cuda/stream.cuh"

namespace strata {
namespace {

// Where the inputs of row b lie, with the tail in front; null counts as zero.
struct Inputs {
  Tensor x, initial, seq_idx;
  StateRef tail;
  int64_t b, seq_len, kernel, channels;

  template <class T>
  __device__ __forceinline__ const T* at(int64_t t) const {
    if (t >= 0) return x.row<T>(b * seq_len + t);
    if (initial) return initial.row<T>((b + 1) * (kernel - 1) + t);
    if (tail) return tail.row<T>(b) + (kernel - 1 + t) * channels;
    return nullptr;
  }
  // The document of token t; what precedes the start belongs to the first.
  __device__ __forceinline__ int32_t document(int64_t t) const {
    return seq_idx.ptr<int32_t>()[b * seq_len + (t < 0 ? 0 : t)];
  }
  __device__ __forceinline__ bool together(int64_t from, int64_t to) const {
    return !seq_idx || from == to || document(from) == document(to);
  }
  // Channel c of the input of time `from` as token t sees it.
  template <class T>
  __device__ __forceinline__ T seen(int64_t from, int64_t t, int64_t c) const {
    const T* row = together(from, t) ? at<T>(from) : nullptr;
    return row ? row[c] : T(0.0f);
  }
  // N channels from c on of the input of time t.
  template <class T, int N>
  __device__ __forceinline__ Pack<Accum<T>, N> pack(int64_t t, int64_t c) const {
    const T* row = at<T>(t);
    return row ? widen(load_pack<N>(row + c)) : Pack<Accum<T>, N>{};
  }
};

// The bias is in the type of the weight or in the one that sums are in.
template <class T>
__device__ __forceinline__ Accum<T> bias_at(const Tensor& bias, int64_t c) {
  if (!bias) return 0;
  if (is_half<T> && bias.dtype == dtype_of<T>()) return wide(bias.ptr<T>()[c]);
  return bias.ptr<Accum<T>>()[c];
}
template <class T>
void expect_bias(const char* op, const Tensor& bias) {
  if (bias && bias.dtype != dtype_of<T>()) expect_accum<T>(op, "the bias", bias);
}

// bias + taps . inputs of token t in channel c; w: the channel's taps, `step` apart
template <class T, class W>
__device__ __forceinline__ Accum<T> pre_activation(const Inputs& in, Accum<T> bias, const W* w,
                                                   int step, int64_t t, int64_t c) {
  Accum<T> sum = bias;
#pragma unroll 4
  for (int64_t j = 0; j < in.kernel; ++j)
    sum += wide(w[j * step]) * wide(in.seen<T>(t - in.kernel + 1 + j, t, c));
  return sum;
}

// The taps of N channels from c on, by position.
template <class T, int kKernel, int N>
__device__ __forceinline__ void load_taps(const Tensor& weight, int64_t c,
                                          Pack<Accum<T>, N> (&taps)[kKernel]) {
  const T* w = weight.ptr<T>() + c * kKernel;  // N kKernel numbers, channel by channel
  Pack<T, N> raw[kKernel];
#pragma unroll
  for (int j = 0; j < kKernel; ++j) raw[j] = load_pack<N>(w + j * N);
#pragma unroll
  for (int j = 0; j < kKernel; ++j)
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const int at = e * kKernel + j;
      taps[j][e] = wide(raw[at / N][at % N]);
    }
}

}  // namespace
}  // namespace strata
