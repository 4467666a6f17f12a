// What the norms share: a team of threads per group of a row, and sums over rows per column.
#pragma once

#include <type_traits>

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/stream.cuh"
#include "core/ops/row_blocks.h"

namespace strata {
namespace {

constexpr int64_t kWarpGroup = 1024;  // a warp takes a group up to this wide, a block a wider one

// A warp or a whole block: the threads that work on one group of one row.
template <int kTeam>
struct Team {
  int64_t row, g, at;  // at: the group's first column
  int lane;
  bool idle;

  __device__ __forceinline__ Team(const Tensor& x, int64_t group) {
    const int64_t groups = x.cols() / group;
    const int64_t task = int64_t(blockIdx.x) * (kThreads / kTeam) + threadIdx.x / kTeam;
    row = task / groups;
    g = task % groups;
    at = g * group;
    lane = threadIdx.x % kTeam;
    idle = row >= x.rows();
  }
  template <class T>
  __device__ __forceinline__ T sum(T x) const {
    if constexpr (kTeam == kWarp) {
      return warp_sum(x);
    } else {
      __shared__ T room[kThreads / kWarp];
      return block_sum(x, room);
    }
  }
};

// The weights from column c on; ones where there is no weight.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> weights_at(const T* w, int64_t c, T one) {
  Pack<T, N> out;
#pragma unroll
  for (int e = 0; e < N; ++e) out.v[e] = T(1);
  if (w) {
    out = load_pack<N>(w + c);
#pragma unroll
    for (int e = 0; e < N; ++e) out.v[e] += one;
  }
  return out;
}

// How many blocks of a kernel the card holds at once.
template <class Kernel>
int64_t resident_blocks(const char* op, Kernel kernel, int threads, size_t shared_bytes) {
  const int processors = device_attribute(cudaDevAttrMultiProcessorCount, op);
  int each = 0;
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes),
             op);
  return int64_t(processors) * each;
}

// Calls launch(threads of a team, elements of an access, blocks), the first two as constants.
template <class T, class F>
void with_teams(const Tensor& x, int64_t group, bool packs, const F& launch) {
  const int64_t tasks = x.rows() * (x.cols() / group);
  if (tasks == 0) return;
  using One = std::integral_constant<int, 1>;
  using All = std::integral_constant<int, kPack<T>>;
  const auto with_team = [&](auto team) {
    constexpr int kTasks = kThreads / decltype(team)::value;
    const unsigned blocks = unsigned((tasks + kTasks - 1) / kTasks);
    if (packs && group % kPack<T> == 0)
      launch(team, All{}, blocks);
    else
      launch(team, One{}, blocks);
  };
  if (group <= kWarpGroup)
    with_team(std::integral_constant<int, kWarp>{});
  else
    with_team(std::integral_constant<int, kThreads>{});
}

constexpr int kSumRows = 16;  // rows that a block reads at once

// partial (row blocks, kSums d): the sums over each block's rows of what add(r, c, sums) adds.
template <class T, int kSums, class Add>
__global__ void __launch_bounds__(kWarp* kSumRows)
    column_sums_kernel(Add add, RowBlocks blocks, int64_t d, Tensor partial) {
  __shared__ T room[kSums][kSumRows][kWarp];
  const int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x, block = blockIdx.y;
  T sums[kSums] = {};
  if (c < d) {
#pragma unroll 4
    for (int64_t r = blocks.begin(block) + threadIdx.y; r < blocks.end(block); r += kSumRows)
      add(r, c, sums);
  }
#pragma unroll
  for (int i = 0; i < kSums; ++i) room[i][threadIdx.y][threadIdx.x] = sums[i];
  __syncthreads();
  const int i = threadIdx.y;
  if (i >= kSums || c >= d) return;
  T sum = 0;
  for (int y = 0; y < kSumRows; ++y) sum += room[i][y][threadIdx.x];
  partial.row<T>(block)[i * d + c] = sum;
}

// target (d,) = or += the sums over the first `blocks` rows, in a fixed order, of partial columns
// [offset, offset + d)
template <class T>
__global__ void __launch_bounds__(kWarp* kSumRows)
    sum_blocks_kernel(GradTarget target, Tensor partial, int64_t blocks, int64_t offset) {
  __shared__ T room[kSumRows][kWarp];
  const int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x, d = target.grad.numel();
  T sum = 0;
  if (c < d) {
#pragma unroll 4
    for (int64_t block = threadIdx.y; block < blocks; block += kSumRows)
      sum += partial.row<T>(block)[offset + c];
  }
  room[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= d) return;
  for (int y = 1; y < kSumRows; ++y) sum += room[y][threadIdx.x];
  put(target.grad.ptr<T>() + c, sum, target.accumulate);
}

// Returns the number of row blocks.
template <class T, int kSums, class Add>
int64_t column_sums(const Add& add, const Tensor& x, const Tensor& partial, cudaStream_t stream) {
  const RowBlocks blocks = row_blocks(x.rows());
  const int64_t d = x.cols();
  const dim3 grid(unsigned((d + kWarp - 1) / kWarp), unsigned(blocks.count));
  if (blocks.count > 0)
    column_sums_kernel<T, kSums>
        <<<grid, dim3(kWarp, kSumRows), 0, stream>>>(add, blocks, d, partial);
  return blocks.count;
}

template <class T>
void sum_blocks(const char* op, const GradTarget& target, const Tensor& partial, int64_t blocks,
                int64_t offset, cudaStream_t stream) {
  if (!target.wanted) return;
  expect_accum<T>(op, "the gradient of a parameter", target.grad);
  const unsigned grid = unsigned((target.grad.numel() + kWarp - 1) / kWarp);
  sum_blocks_kernel<T><<<grid, dim3(kWarp, kSumRows), 0, stream>>>(target, partial, blocks, offset);
}

}  // namespace
}  // namespace strata
