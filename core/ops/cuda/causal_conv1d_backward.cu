// Gradients of the depthwise causal convolution. Sums over tokens go through one row of partial
// sums per block of conv_time_block tokens.
#include <type_traits>

#include "core/kernels/expect.cuh"
#include "core/kernels/mma.cuh"
#include "core/ops/cuda/conv_inputs.cuh"

namespace strata {
namespace {

constexpr int kLanes = kWarp;  // channels of a tile
constexpr int kParts = kThreads / kLanes;
constexpr int kPackThreads = 64;  // of a block that takes packs of channels
constexpr int kStages = 8;        // tokens of x and dy in shared memory
constexpr int kSumRows = 16;      // rows of partial sums that a block reads at once

// One tile: up to kConvTimeBlock tokens of row b, kLanes channels. ds, the gradient of the sum
// before the activation, is computed for the tile and the kernel - 1 tokens after it, which dx
// needs. ds and w lie in shared memory as (tokens, kLanes) and (kernel, kLanes). A row of partial
// sums is for `tiles` tiles in a row, which the block takes one by one.
template <class T>
__global__ void __launch_bounds__(kThreads)
    conv_backward_kernel(CausalConv1dBackwardArgs a, int64_t time_blocks, int64_t channel_blocks,
                         int64_t tiles) {
  using A = Accum<T>;
  extern __shared__ double shared_room[];
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols(), kernel = a.weight.shape[2];
  A* w = reinterpret_cast<A*>(shared_room);
  A* ds = w + kernel * kLanes;
  const int lane = threadIdx.x % kLanes, part = threadIdx.x / kLanes;
  const int64_t c = blockIdx.x % channel_blocks * kLanes + lane;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, block = rest % time_blocks;
  const bool inside = c < channels;
  const Inputs in{a.x, a.initial, a.seq_idx, {}, b, seq_len, kernel, channels};

  for (int64_t j = part; j < kernel; j += kParts)
    w[j * kLanes + lane] = inside ? wide(a.weight.ptr<T>()[c * kernel + j]) : A(0);
  const A bias = inside ? bias_at<T>(a.bias, c) : A(0);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t t0 = (block * tiles + tile) * kConvTimeBlock;
    if (t0 >= seq_len) break;
    const int64_t t1 = t0 + kConvTimeBlock < seq_len ? t0 + kConvTimeBlock : seq_len;
    const int64_t halo = t1 + kernel - 1 < seq_len ? t1 + kernel - 1 : seq_len;
    __syncthreads();
    for (int64_t t = t0 + part; inside && t < halo; t += kParts) {
      A s = wide(a.dy.row<T>(b * seq_len + t)[c]);
      if (a.silu) {
        const A sum = pre_activation<T>(in, bias, w + lane, kLanes, t, c);
        const A sig = sigmoid_for<T>(sum);
        s *= sig * (1 + sum * (1 - sig));
      }
      ds[(t - t0) * kLanes + lane] = s;
    }
    __syncthreads();
    if (!inside) continue;

    // dx_t = sum_lag w[kernel - 1 - lag] ds_{t + lag}
    const auto gather = [&](int64_t t, T* dx, bool accumulate) {
      A sum = accumulate ? wide(*dx) : A(0);
      for (int64_t lag = t < 0 ? -t : 0; lag < kernel && t + lag < seq_len; ++lag) {
        if (!in.together(t, t + lag)) break;
        sum += w[(kernel - 1 - lag) * kLanes + lane] * ds[(t + lag - t0) * kLanes + lane];
      }
      *dx = narrow_to<T>(sum);
    };
    if (a.dx.wanted)
      for (int64_t t = t0 + part; t < t1; t += kParts)
        gather(t, a.dx.grad.row<T>(b * seq_len + t) + c, a.dx.accumulate);
    if (a.dinitial.wanted && t0 == 0)
      for (int64_t t = 1 - kernel + part; t < 0; t += kParts)
        gather(t, a.dinitial.grad.row<T>((b + 1) * (kernel - 1) + t) + c, a.dinitial.accumulate);
    if (!a.partial) continue;
    // dweight of tap j, and after the taps dbias, over the tile's tokens.
    A* sums = a.partial.row<A>(b * time_blocks + block);
    for (int64_t j = part; j <= kernel; j += kParts) {
      A sum = 0;
#pragma unroll 8
      for (int64_t t = t0; t < t1; ++t) {
        const A x = j < kernel ? wide(in.seen<T>(t - kernel + 1 + j, t, c)) : A(1);
        sum += ds[(t - t0) * kLanes + lane] * x;
      }
      put(sums + j * channels + c, sum, tile > 0);
    }
  }
}

// N channels of 16 bytes over the tokens of a row of partial sums, in one walk. A token adds to the
// dx of the kKernel - 1 tokens before it; those of the next block's first tokens are computed here
// too. x and dy come kStages - 1 tokens ahead into shared memory, where a thread reads its own.
template <class T, int kKernel, bool kDocuments>
__global__ void __launch_bounds__(kPackThreads, 5)
    conv_backward_packs_kernel(CausalConv1dBackwardArgs a, int64_t time_blocks,
                               int64_t channel_blocks, int tokens) {
  using A = Accum<T>;
  constexpr int N = kPack<T>, kPast = kKernel - 1;
  __shared__ Pack<T, N> room[kStages][2][kPackThreads];
  const int64_t c = (blockIdx.x % channel_blocks * blockDim.x + threadIdx.x) * N;
  const int64_t rest = blockIdx.x / channel_blocks;
  const int64_t b = rest / time_blocks, t0 = rest % time_blocks * tokens;
  const int64_t seq_len = a.x.shape[1], channels = a.x.cols();
  if (c >= channels) return;
  const Inputs in{a.x, a.initial, a.seq_idx, {}, b, seq_len, kKernel, channels};
  const int64_t t1 = t0 + tokens < seq_len ? t0 + tokens : seq_len;
  const int64_t end = t1 + kPast < seq_len ? t1 + kPast : seq_len;

  const T* next_x = a.x.row<T>(b * seq_len + t0) + c;
  const T* next_dy = a.dy.row<T>(b * seq_len + t0) + c;
  int64_t next = t0;
  const auto fetch = [&] {
    if (next < end) {
      copy_async(&room[next % kStages][0][threadIdx.x], next_x);
      copy_async(&room[next % kStages][1][threadIdx.x], next_dy);
      next_x += a.x.pitch;
      next_dy += a.dy.pitch;
      ++next;
    }
    commit_copies();
  };
#pragma unroll
  for (int s = 0; s + 1 < kStages; ++s) fetch();

  Pack<A, N> taps[kKernel], bias, dweight[kKernel] = {}, dbias = {};
  Pack<A, N> x[kKernel], dx[kKernel] = {};  // of the tokens t - kPast ... t
  int32_t documents[kKernel] = {};
  load_taps<T>(a.weight, c, taps);
#pragma unroll
  for (int j = 0; j < kPast; ++j) {
    x[j + 1] = in.pack<T, N>(t0 - kPast + j, c);
    if constexpr (kDocuments) documents[j + 1] = in.document(t0 - kPast + j);
  }
#pragma unroll
  for (int e = 0; e < N; ++e) bias[e] = bias_at<T>(a.bias, c + e);

  const auto shift = [&] {
#pragma unroll
    for (int j = 0; j < kPast; ++j) {
      x[j] = x[j + 1];
      dx[j] = dx[j + 1];
      documents[j] = documents[j + 1];
    }
    dx[kPast] = {};
  };
  // dx of the oldest token is complete.
  const auto finish = [&](int64_t t) {
    if (t >= t0 && a.dx.wanted)
      put_accum(a.dx.grad.row<T>(b * seq_len + t) + c, dx[0], a.dx.accumulate);
    if (t < 0 && a.dinitial.wanted)
      put_accum(a.dinitial.grad.row<T>((b + 1) * kPast + t) + c, dx[0], a.dinitial.accumulate);
  };
  // own: the token's part of the sums is this block's.
  const auto step = [&](int64_t t, auto own) {
    fetch();
    wait_copies<kStages - 1>();
    shift();
    x[kPast] = widen(room[t % kStages][0][threadIdx.x]);
    if constexpr (kDocuments) documents[kPast] = in.document(t);
    Pack<A, N> ds = widen(room[t % kStages][1][threadIdx.x]);
    const auto sees = [&](int j) { return !kDocuments || documents[j] == documents[kPast]; };
    if (a.silu) {
      Pack<A, N> sum = bias;
#pragma unroll
      for (int j = 0; j < kKernel; ++j) {
        if (!sees(j)) continue;
#pragma unroll
        for (int e = 0; e < N; ++e) sum[e] += taps[j][e] * x[j][e];
      }
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A sig = sigmoid_for<T>(sum[e]);
        ds[e] *= sig * (1 + sum[e] * (1 - sig));
      }
    }
#pragma unroll
    for (int j = 0; j < kKernel; ++j) {
      if (!sees(j)) continue;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        dx[j][e] += taps[j][e] * ds[e];
        if constexpr (own.value) dweight[j][e] += x[j][e] * ds[e];
      }
    }
    if constexpr (own.value) {
#pragma unroll
      for (int e = 0; e < N; ++e) dbias[e] += ds[e];
    }
    finish(t - kPast);
  };
  int64_t t = t0;
#pragma unroll 4
  for (; t < t1; ++t) step(t, std::true_type{});
  for (; t < end; ++t) step(t, std::false_type{});
  for (; t < t1 + kPast; ++t) {
    shift();
    finish(t - kPast);
  }
  if (!a.partial) return;
  A* sums = a.partial.row<A>(rest) + c;
#pragma unroll
  for (int j = 0; j < kKernel; ++j) store_pack(sums + j * channels, dweight[j]);
  store_pack(sums + kKernel * channels, dbias);
}

// False when the shapes do not allow packs.
template <class T>
bool conv_backward_packs(const CausalConv1dBackwardArgs& a, int64_t time_blocks, int64_t tokens,
                         cudaStream_t stream) {
  if constexpr (is_half<T>) {
    const int64_t batch = a.x.shape[0], channels = a.x.cols();
    if (channels % kPack<T> != 0 || !packable(a.x) || !packable(a.dy) || !packable(a.initial) ||
        !packable(a.dx.grad) || !packable(a.dinitial.grad) || !packable(a.partial) ||
        reinterpret_cast<uintptr_t>(a.weight.data) % 16 != 0)
      return false;
    const int64_t channel_blocks = (channels / kPack<T> + kPackThreads - 1) / kPackThreads;
    const auto run = [&](auto kernel) {
      kernel<<<unsigned(batch * time_blocks * channel_blocks), kPackThreads, 0, stream>>>(
          a, time_blocks, channel_blocks, int(tokens));
      return true;
    };
    const auto with_width = [&](auto documents) {
      constexpr bool kDocuments = documents.value;
      switch (a.weight.shape[2]) {
        case 2:
          return run(conv_backward_packs_kernel<T, 2, kDocuments>);
        case 3:
          return run(conv_backward_packs_kernel<T, 3, kDocuments>);
        case 4:
          return run(conv_backward_packs_kernel<T, 4, kDocuments>);
        default:
          return false;
      }
    };
    return a.seq_idx ? with_width(std::true_type{}) : with_width(std::false_type{});
  }
  return false;
}

// dweight and dbias from the rows of partial sums, in a fixed order.
template <class A>
__global__ void __launch_bounds__(kWarp* kSumRows) conv_sums_kernel(CausalConv1dBackwardArgs a) {
  __shared__ A room[kSumRows][kWarp];
  const int64_t channels = a.x.cols(), kernel = a.weight.shape[2];
  const int64_t i = int64_t(blockIdx.x) * kWarp + threadIdx.x, j = i / channels, c = i % channels;
  const GradTarget& target = j < kernel ? a.dweight : a.dbias;
  const bool wanted = j <= kernel && target.wanted;
  A sum = 0;
  if (wanted) {
#pragma unroll 4
    for (int64_t row = threadIdx.y; row < a.partial.rows(); row += kSumRows)
      sum += a.partial.row<A>(row)[i];
  }
  room[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || !wanted) return;
  for (int y = 1; y < kSumRows; ++y) sum += room[y][threadIdx.x];
  put(target.grad.ptr<A>() + (j < kernel ? c * kernel + j : c), sum, target.accumulate);
}

template <class T>
void causal_conv1d_backward_cuda(const CausalConv1dBackwardArgs& a, Stream stream) {
  using A = Accum<T>;
  constexpr const char* kOp = "causal_conv1d_backward";
  const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1], channels = a.x.cols();
  const int64_t kernel = a.weight.shape[2];
  if (a.x.numel() == 0) return;
  expect_bias<T>(kOp, a.bias);
  expect_accum<T>(kOp, "the gradient of the weight", a.dweight.grad);
  expect_accum<T>(kOp, "the gradient of the bias", a.dbias.grad);
  const int64_t tokens = conv_time_block(a.x);
  const int64_t time_blocks = (seq_len + tokens - 1) / tokens;
  if (!conv_backward_packs<T>(a, time_blocks, tokens, stream_of(stream))) {
    const int64_t channel_blocks = (channels + kLanes - 1) / kLanes;
    const size_t bytes = size_t(kConvTimeBlock + 2 * kernel - 1) * kLanes * sizeof(A);  // < 64 KB
    check_cuda(cudaFuncSetAttribute(conv_backward_kernel<T>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
               kOp);
    conv_backward_kernel<T>
        <<<unsigned(batch * time_blocks * channel_blocks), kThreads, bytes, stream_of(stream)>>>(
            a, time_blocks, channel_blocks, tokens / kConvTimeBlock);
  }
  if (a.partial) {
    const unsigned blocks = unsigned(((kernel + 1) * channels + kWarp - 1) / kWarp);
    conv_sums_kernel<A><<<blocks, dim3(kWarp, kSumRows), 0, stream_of(stream)>>>(a);
  }
  check_launch(kOp);
}

}  // namespace

STRATA_CUDA_KERNEL("causal_conv1d_backward", CausalConv1dBackwardArgs, causal_conv1d_backward_cuda)
STRATA_CUDA_BF16_KERNEL("causal_conv1d_backward", CausalConv1dBackwardArgs,
                        causal_conv1d_backward_cuda)

}  // namespace strata
