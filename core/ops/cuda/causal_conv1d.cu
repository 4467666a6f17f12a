// Depthwise causal convolution. Threads lie along channels, so that all access is coalesced, and
// blocks along time, so that a long sequence of a small batch fills the card.
#include "core/ops/causal_conv1d.h"

#include "core/kernels/device.cuh"

namespace strata {
namespace {

constexpr int kTime = 16;      // tokens of a block of the forward
constexpr int kLanes = kWarp;  // channels of a block of the backward
constexpr int kParts = kThreads / kLanes;

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
  // Whether tokens from <= to lie in one document; what precedes the start belongs to the first.
  __device__ __forceinline__ bool together(int64_t from, int64_t to) const {
    if (!seq_idx || from == to) return true;
    const int32_t* doc = seq_idx.ptr<int32_t>() + b * seq_len;
    return doc[from < 0 ? 0 : from] == doc[to];
  }
  // Channel c of the input of time `from` as token t sees it.
  template <class T>
  __device__ __forceinline__ T seen(int64_t from, int64_t t, int64_t c) const {
    const T* row = together(from, t) ? at<T>(from) : nullptr;
    return row ? row[c] : T(0);
  }
};

// bias + taps . inputs of token t in channel c; w: the channel's taps, `step` apart
template <class T>
__device__ __forceinline__ T pre_activation(const Inputs& in, T bias, const T* w, int step,
                                            int64_t t, int64_t c) {
  T sum = bias;
#pragma unroll 4
  for (int64_t j = 0; j < in.kernel; ++j)
    sum += w[j * step] * in.seen<T>(t - in.kernel + 1 + j, t, c);
  return sum;
}

// One channel over kTime tokens of a row. kKernel: width of the filter, whose inputs then slide
// through registers; 0: any width.
template <class T, int kKernel>
__global__ void conv_kernel(CausalConv1dArgs a, int64_t time_blocks, int64_t channel_blocks) {
  const int64_t c = blockIdx.x % channel_blocks * blockDim.x + threadIdx.x;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, t0 = rest % time_blocks * kTime;
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols(), kernel = a.weight.shape[2];
  if (c >= channels) return;
  const Inputs in{a.x, a.initial, a.seq_idx, a.tail, b, seq_len, kernel, channels};
  const int64_t t1 = t0 + kTime < seq_len ? t0 + kTime : seq_len;
  const T bias = a.bias ? a.bias.ptr<T>()[c] : T(0);
  const T* w = a.weight.ptr<T>() + c * kernel;
  const auto finish = [&](int64_t t, T sum) {
    a.y.row<T>(b * seq_len + t)[c] = a.silu ? sum * sigmoid_of(sum) : sum;
  };
  if constexpr (kKernel == 0) {
    for (int64_t t = t0; t < t1; ++t) finish(t, pre_activation(in, bias, w, 1, t, c));
  } else {
    T tap[kKernel], x[kKernel];  // x: inputs of times t - kKernel + 1 ... t
#pragma unroll
    for (int j = 0; j < kKernel; ++j) {
      tap[j] = w[j];
      const T* row = j > 0 ? in.at<T>(t0 - kKernel + j) : nullptr;
      x[j] = row ? row[c] : T(0);
    }
#pragma unroll 4
    for (int64_t t = t0; t < t1; ++t) {
#pragma unroll
      for (int j = 0; j + 1 < kKernel; ++j) x[j] = x[j + 1];
      x[kKernel - 1] = a.x.row<T>(b * seq_len + t)[c];
      T sum = bias;
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

template <class T>
void causal_conv1d_cuda(const CausalConv1dArgs& a, Stream stream) {
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  if (a.x.numel() == 0) return;
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

// One tile: up to kConvTimeBlock tokens of row b, kLanes channels. ds, the gradient of the sum
// before the activation, is computed for the tile and the kernel - 1 tokens after it, which dx
// needs. ds and w lie in shared memory as (tokens, kLanes) and (kernel, kLanes).
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_backward_kernel(CausalConv1dBackwardArgs a, int64_t time_blocks, int64_t channel_blocks) {
  extern __shared__ double shared_room[];
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols(), kernel = a.weight.shape[2];
  T* w = reinterpret_cast<T*>(shared_room);
  T* ds = w + kernel * kLanes;
  const int lane = threadIdx.x % kLanes, part = threadIdx.x / kLanes;
  const int64_t c = blockIdx.x % channel_blocks * kLanes + lane;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, block = rest % time_blocks, t0 = block * kConvTimeBlock;
  const int64_t t1 = t0 + kConvTimeBlock < seq_len ? t0 + kConvTimeBlock : seq_len;
  const int64_t halo = t1 + kernel - 1 < seq_len ? t1 + kernel - 1 : seq_len;
  const bool inside = c < channels;
  const Inputs in{a.x, a.initial, a.seq_idx, {}, b, seq_len, kernel, channels};

  for (int64_t j = part; j < kernel; j += kParts)
    w[j * kLanes + lane] = inside ? a.weight.ptr<T>()[c * kernel + j] : T(0);
  __syncthreads();
  if (inside) {
    const T bias = a.bias ? a.bias.ptr<T>()[c] : T(0);
    for (int64_t t = t0 + part; t < halo; t += kParts) {
      T s = a.dy.row<T>(b * seq_len + t)[c];
      if (a.silu) {
        const T sum = pre_activation(in, bias, w + lane, kLanes, t, c);
        const T sig = sigmoid_of(sum);
        s *= sig * (1 + sum * (1 - sig));
      }
      ds[(t - t0) * kLanes + lane] = s;
    }
  }
  __syncthreads();
  if (!inside) return;

  // dx_t = sum_lag w[kernel - 1 - lag] ds_{t + lag}
  const auto gather = [&](int64_t t, T* dx, bool accumulate) {
    T sum = accumulate ? *dx : T(0);
    for (int64_t lag = t < 0 ? -t : 0; lag < kernel && t + lag < seq_len; ++lag) {
      if (!in.together(t, t + lag)) break;
      sum += w[(kernel - 1 - lag) * kLanes + lane] * ds[(t + lag - t0) * kLanes + lane];
    }
    *dx = sum;
  };
  if (a.dx.wanted)
    for (int64_t t = t0 + part; t < t1; t += kParts)
      gather(t, a.dx.grad.row<T>(b * seq_len + t) + c, a.dx.accumulate);
  if (a.dinitial.wanted && t0 == 0)
    for (int64_t t = 1 - kernel + part; t < 0; t += kParts)
      gather(t, a.dinitial.grad.row<T>((b + 1) * (kernel - 1) + t) + c, a.dinitial.accumulate);
  if (!a.partial) return;
  // dweight of tap j, and after the taps dbias, over the tile's tokens.
  T* sums = a.partial.row<T>(b * time_blocks + block);
  for (int64_t j = part; j <= kernel; j += kParts) {
    T sum = 0;
#pragma unroll 8
    for (int64_t t = t0; t < t1; ++t) {
      const T x = j < kernel ? in.seen<T>(t - kernel + 1 + j, t, c) : T(1);
      sum += ds[(t - t0) * kLanes + lane] * x;
    }
    sums[j * channels + c] = sum;
  }
}

// dweight and dbias from the tiles' sums, tile by tile in order.
template <class T>
__global__ void conv_sums_kernel(CausalConv1dBackwardArgs a) {
  const int64_t channels = a.x.cols(), kernel = a.weight.shape[2];
  STRATA_GRID_LOOP(i, (kernel + 1) * channels) {
    const int64_t j = i / channels, c = i % channels;
    const GradTarget& target = j < kernel ? a.dweight : a.dbias;
    if (!target.wanted) continue;
    T sum = 0;
#pragma unroll 8
    for (int64_t block = 0; block < a.partial.rows(); ++block) sum += a.partial.row<T>(block)[i];
    put(target.grad.ptr<T>() + (j < kernel ? c * kernel + j : c), sum, target.accumulate);
  }
}

template <class T>
void causal_conv1d_backward_cuda(const CausalConv1dBackwardArgs& a, Stream stream) {
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  const int64_t kernel = a.weight.shape[2];
  if (a.x.numel() == 0) return;
  const int64_t time_blocks = (seq_len + kConvTimeBlock - 1) / kConvTimeBlock;
  const int64_t channel_blocks = (channels + kLanes - 1) / kLanes;
  const size_t bytes = size_t(kConvTimeBlock + 2 * kernel - 1) * kLanes * sizeof(T);  // < 64 KB
  check_cuda(cudaFuncSetAttribute(conv_backward_kernel<T>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             "causal_conv1d_backward");
  conv_backward_kernel<T>
      <<<unsigned(batch * time_blocks * channel_blocks), kThreads, bytes, stream_of(stream)>>>(
          a, time_blocks, channel_blocks);
  if (a.partial)
    conv_sums_kernel<T><<<blocks_for((kernel + 1) * channels), kThreads, 0, stream_of(stream)>>>(a);
  check_launch("causal_conv1d_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("causal_conv1d", CausalConv1dArgs, causal_conv1d_cuda)
STRATA_CUDA_KERNEL("causal_conv1d_backward", CausalConv1dBackwardArgs, causal_conv1d_backward_cuda)

}  // namespace strata
