#include "core/ops/positions.h"

#include "core/kernels/device.cuh"

namespace strata {
namespace {

constexpr int kScanThreads = 1024;

// The largest x of this thread and those before it in the block. `room` holds a number per warp.
__device__ __forceinline__ int32_t max_so_far(int32_t x, int32_t* room) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int32_t other = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset && other > x) x = other;
  }
  if (lane == kWarp - 1) room[warp] = x;
  __syncthreads();
  for (int w = 0; w < warp; ++w) x = room[w] > x ? room[w] : x;
  __syncthreads();
  return x;
}

// One block per row, kScanThreads tokens at a time: the latest place where a document began is the
// largest one so far.
__global__ void __launch_bounds__(kScanThreads) positions_kernel(PositionsArgs a) {
  __shared__ int32_t room[kWarp];
  __shared__ int32_t carried;
  const int64_t rows = a.positions.rows();
  const int32_t n = int32_t(a.positions.cols());
  for (int64_t b = blockIdx.x; b < rows; b += gridDim.x) {
    const int32_t* document = a.seq_idx.present ? a.seq_idx.row<int32_t>(b) : nullptr;
    const int32_t start = a.start.present ? a.start.ptr<int32_t>()[b] : 0;
    int32_t* out = a.positions.row<int32_t>(b);
    int32_t begun = -1;  // before this step: -1 while the row's first document lasts
    for (int32_t t0 = 0; t0 < n; t0 += kScanThreads) {
      const int32_t t = t0 + int32_t(threadIdx.x);
      int32_t last = begun;
      if (document) {
        if (t > 0 && t < n && document[t] != document[t - 1]) last = t;
        last = max_so_far(last, room);
        if (threadIdx.x == kScanThreads - 1) carried = last;
        __syncthreads();
        begun = carried;
      }
      if (t < n) out[t] = last < 0 ? start + t : t - last;
    }
  }
}

void positions_cuda(const PositionsArgs& a, Stream stream) {
  positions_kernel<<<blocks_for(a.positions.rows(), 1), kScanThreads, 0, stream_of(stream)>>>(a);
  check_launch("positions");
}

}  // namespace

STRATA_KERNEL("positions", DeviceKind::cuda, DType::i32, PositionsArgs, positions_cuda)

}  // namespace strata
