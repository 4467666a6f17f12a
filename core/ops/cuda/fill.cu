#include "core/kernels/device.cuh"
#include "core/ops/fill.h"

namespace strata {
namespace {

template <class T>
__global__ void fill_kernel(FillArgs a) {
  const int64_t cols = a.x.cols();
  STRATA_GRID_LOOP(i, a.x.numel()) a.x.row<T>(i / cols)[i % cols] = T(a.value);
}

template <class T>
void fill_cuda(const FillArgs& a, Stream stream) {
  fill_kernel<T><<<blocks_for(a.x.numel()), kThreads, 0, stream_of(stream)>>>(a);
  check_launch("fill");
}

}  // namespace

STRATA_CUDA_KERNEL("fill", FillArgs, fill_cuda)
STRATA_KERNEL("fill", DeviceKind::cuda, DType::i64, FillArgs, fill_cuda<int64_t>)
STRATA_KERNEL("fill", DeviceKind::cuda, DType::i32, FillArgs, fill_cuda<int32_t>)

}  // namespace strata
