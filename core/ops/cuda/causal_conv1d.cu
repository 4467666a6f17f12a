// Depthwise causal convolution. Threads lie along channels, so that all access is coalesced, and
// blocks along time, so that a long sequence of a small batch fills the card.
#include "core/ops/causal_conv1d.h"

#include <type_traits>

#include "core/ops/cuda/conv_inputs.cuh"

namespace strata {
namespace {

constexpr int kTime = 16;          // tokens of a block that takes single channels
constexpr int kPackThreads = 128;  // of a block that takes packs of channels
constexpr int kAhead = 8;

// One channel over kTime tokens of a row. kKernel: width of the filter, whose inputs then slide
// through registers; 0: any width.
template <class T, int kKernel>
__global__ void conv_kernel(CausalConv1dArgs a, int64_t time_blocks, int64_t channel_blocks) {
  using A = Accum<T>;
  const int64_t c = blockIdx.x % channel_blocks * blockDim.x + threadIdx.x;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, t0 = rest % time_blocks * kTime;
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols(), kernel = a.weight.shape[2];
  if (c >= channels) return;
  const Inputs in{a.x, a.initial, a.seq_idx, a.tail, b, seq_len, kernel, channels};
  const int64_t t1 = t0 + kTime < seq_len ? t0 + kTime : seq_len;
  const A bias = bias_at<T>(a.bias, c);
  const T* w = a.weight.ptr<T>() + c * kernel;
  const auto finish = [&](int64_t t, A sum) {
    a.y.row<T>(b * seq_len + t)[c] = narrow_to<T>(a.silu ? sum * sigmoid_for<T>(sum) : sum);
  };
  if constexpr (kKernel == 0) {
    for (int64_t t = t0; t < t1; ++t) finish(t, pre_activation<T>(in, bias, w, 1, t, c));
  } else {
    A tap[kKernel], x[kKernel];  // x: inputs of times t - kKernel + 1 ... t
#pragma unroll
    for (int j = 0; j < kKernel; ++j) {
      tap[j] = wide(w[j]);
      const T* row = j > 0 ? in.at<T>(t0 - kKernel + j) : nullptr;
      x[j] = row ? wide(row[c]) : A(0);
    }
#pragma unroll 4
    for (int64_t t = t0; t < t1; ++t) {
#pragma unroll
      for (int j = 0; j + 1 < kKernel; ++j) x[j] = x[j + 1];
      x[kKernel - 1] = wide(a.x.row<T>(b * seq_len + t)[c]);
      A sum = bias;
#pragma unroll
      for (int j = 0; j < kKernel; ++j)
        if (in.together(t - kKernel + 1 + j, t)) sum += tap[j] * x[j];
      finish(t, sum);
    }
  }
}

// The last kernel - 1 inputs become the tail. A thread keeps to one channel of one row and walks
// upwards: what it reads from the old tail it has not replaced yet.
template <class T>
__global__ void replace_tail_kernel(CausalConv1dArgs a) {
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols(), kernel = a.weight.shape[2];
  STRATA_GRID_LOOP(i, a.x.shape[0] * channels) {
    const int64_t b = i / channels, c = i % channels;
    const Inputs in{a.x, a.initial, a.seq_idx, a.tail, b, seq_len, kernel, channels};
    T* tail = a.tail.row<T>(b);
    for (int64_t j = 0; j < kernel - 1; ++j)
      tail[j * channels + c] = in.seen<T>(seq_len - kernel + 1 + j, seq_len - 1, c);
  }
}

// N channels of 16 bytes over `tokens` tokens of a row, the inputs sliding through registers; loads
// run kAhead tokens ahead. A row that one block takes whole also has its tail replaced.
template <class T, int kKernel, bool kDocuments>
__global__ void __launch_bounds__(kPackThreads)
    conv_packs_kernel(CausalConv1dArgs a, int64_t time_blocks, int64_t channel_blocks, int tokens) {
  using A = Accum<T>;
  constexpr int N = kPack<T>, kPast = kKernel - 1;
  const int64_t c = (blockIdx.x % channel_blocks * blockDim.x + threadIdx.x) * N;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, t0 = rest % time_blocks * tokens;
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols();
  if (c >= channels) return;
  const Inputs in{a.x, a.initial, a.seq_idx, a.tail, b, seq_len, kKernel, channels};
  const int64_t t1 = t0 + tokens < seq_len ? t0 + tokens : seq_len;

  Pack<A, N> taps[kKernel], past[kPast], bias;  // past: inputs of times t - kPast ... t - 1
  int32_t documents[kPast] = {};
  load_taps<T>(a.weight, c, taps);
#pragma unroll
  for (int j = 0; j < kPast; ++j) {
    past[j] = in.pack<T, N>(t0 - kPast + j, c);
    if constexpr (kDocuments) documents[j] = in.document(t0 - kPast + j);
  }
#pragma unroll
  for (int e = 0; e < N; ++e) bias[e] = bias_at<T>(a.bias, c + e);

  const T* x = a.x.row<T>(b * seq_len + t0) + c;
  T* y = a.y.row<T>(b * seq_len + t0) + c;
  const auto step = [&](const Pack<T, N>& raw, int32_t document) {
    const Pack<A, N> now = widen(raw);
    Pack<A, N> sum = bias;
#pragma unroll
    for (int j = 0; j < kPast; ++j) {
      if (kDocuments && documents[j] != document) continue;
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += taps[j][e] * past[j][e];
    }
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += taps[kPast][e] * now[e];
    if (a.silu) {
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] *= sigmoid_for<T>(sum[e]);
    }
    store_pack(y, narrow<T>(sum));
    y += a.y.pitch;
#pragma unroll
    for (int j = 0; j + 1 < kPast; ++j) {
      past[j] = past[j + 1];
      documents[j] = documents[j + 1];
    }
    past[kPast - 1] = now;
    documents[kPast - 1] = document;
  };
  int64_t t = t0;
  for (; t + kAhead <= t1; t += kAhead) {
    Pack<T, N> raw[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) raw[i] = load_pack<N>(x + i * a.x.pitch);
    x += kAhead * a.x.pitch;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) step(raw[i], kDocuments ? in.document(t + i) : 0);
  }
  for (; t < t1; ++t) {
    step(load_pack<N>(x), kDocuments ? in.document(t) : 0);
    x += a.x.pitch;
  }
  if (!a.tail || time_blocks > 1) return;
  T* tail = a.tail.row<T>(b) + c;
#pragma unroll
  for (int j = 0; j < kPast; ++j) {
    const bool seen = !kDocuments || documents[j] == documents[kPast - 1];
    store_pack(tail + j * channels, narrow<T>(seen ? past[j] : Pack<A, N>{}));
  }
}

// Whether packs of channels can be loaded from the tail of every sequence.
template <class T>
bool packable_tail(const StateRef& tail) {
  return !tail || (reinterpret_cast<uintptr_t>(tail.base) % 16 == 0 && tail.slot_bytes % 16 == 0);
}

// False when the shapes do not allow packs.
template <class T>
bool conv_packs(const CausalConv1dArgs& a, cudaStream_t stream) {
  if constexpr (is_half<T>) {
    const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
    if (channels % kPack<T> != 0 || !packable(a.x) || !packable(a.y) || !packable(a.initial) ||
        !packable_tail<T>(a.tail) || reinterpret_cast<uintptr_t>(a.weight.data) % 16 != 0)
      return false;
    const int64_t packs = channels / kPack<T>;
    const int64_t channel_blocks = (packs + kPackThreads - 1) / kPackThreads;
    int tokens = 64;  // long walks read few inputs twice; short ones fill the card
    const auto time_blocks = [&] { return (seq_len + tokens - 1) / tokens; };
    while (tokens > kAhead && batch * time_blocks() * channel_blocks < 1024) tokens /= 2;
    const auto run = [&](auto kernel) {
      kernel<<<unsigned(batch * time_blocks() * channel_blocks), kPackThreads, 0, stream>>>(
          a, time_blocks(), channel_blocks, tokens);
      return true;
    };
    const auto with_width = [&](auto documents) {
      constexpr bool kDocuments = documents.value;
      switch (a.weight.shape[2]) {
        case 2:
          return run(conv_packs_kernel<T, 2, kDocuments>);
        case 3:
          return run(conv_packs_kernel<T, 3, kDocuments>);
        case 4:
          return run(conv_packs_kernel<T, 4, kDocuments>);
        default:
          return false;
      }
    };
    const bool ran = a.seq_idx ? with_width(std::true_type{}) : with_width(std::false_type{});
    if (ran && a.tail && time_blocks() > 1)
      replace_tail_kernel<T><<<blocks_for(batch * channels), kThreads, 0, stream>>>(a);
    return ran;
  }
  return false;
}

template <class T>
void causal_conv1d_cuda(const CausalConv1dArgs& a, Stream stream) {
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  if (a.x.numel() == 0) return;
  expect_bias<T>("causal_conv1d", a.bias);
  if (conv_packs<T>(a, stream_of(stream))) return check_launch("causal_conv1d");
  const int threads = 128;
  const int64_t time_blocks = (seq_len + kTime - 1) / kTime;
  const int64_t channel_blocks = (channels + threads - 1) / threads;
  const unsigned blocks = unsigned(batch * time_blocks * channel_blocks);
  const auto run = [&](auto kernel) {
    kernel<<<blocks, threads, 0, stream_of(stream)>>>(a, time_blocks, channel_blocks);
  };
  switch (a.weight.shape[2]) {
    case 2:
      run(conv_kernel<T, 2>);
      break;
    case 3:
      run(conv_kernel<T, 3>);
      break;
    case 4:
      run(conv_kernel<T, 4>);
      break;
    default:
      run(conv_kernel<T, 0>);
  }
  if (a.tail)
    replace_tail_kernel<T><<<blocks_for(batch * channels), kThreads, 0, stream_of(stream)>>>(a);
  check_launch("causal_conv1d");
}

}  // namespace

STRATA_CUDA_KERNEL("causal_conv1d", CausalConv1dArgs, causal_conv1d_cuda)
STRATA_CUDA_HALF_KERNEL("causal_conv1d", CausalConv1dArgs, causal_conv1d_cuda)

}  // namespace strata
