#include "core/ops/tally.h"

#include "core/kernels/device.cuh"

namespace strata {
namespace {

template <class T>
__global__ void tally_kernel(TallyArgs a) {
  const double factor = a.factor.present ? a.weight * *a.factor.ptr<double>() : a.weight;
  STRATA_GRID_LOOP(i, a.sum.numel())
  a.sum.ptr<double>()[i] += factor * double(a.values.ptr<T>()[i]);
}

template <class T>
void tally_cuda(const TallyArgs& a, Stream s) {
  if (a.sum.numel() == 0) return;
  tally_kernel<T><<<blocks_for(a.sum.numel()), kThreads, 0, stream_of(s)>>>(a);
  check_launch("tally");
}

}  // namespace

STRATA_CUDA_KERNEL("tally", TallyArgs, tally_cuda)
STRATA_KERNEL("tally", DeviceKind::cuda, DType::i32, TallyArgs, tally_cuda<int32_t>)
STRATA_KERNEL("tally", DeviceKind::cuda, DType::i64, TallyArgs, tally_cuda<int64_t>)

}  // namespace strata
