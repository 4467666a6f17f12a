#include "core/ops/gather.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/scatter_rows.cuh"

namespace strata {
namespace {

// A kernel cannot throw: an index that is neither a row nor negative gives a row of NaN, and
// scatter_add drops it.
template <class T>
struct Gather {
  Tensor x, y;
  const int32_t* index;
  int64_t n;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const int64_t i = index[r];
    Pack<Accum<T>, V> p = {};
    if (i >= n) {
#pragma unroll
      for (int k = 0; k < V; ++k) p[k] = Accum<T>(NAN);
    } else if (i >= 0) {
      p = load_accum<T, V>(x, i, c);
    }
    put_accum<T>(y, r, c, p, accumulate);
  }
};

template <class T>
void gather_cuda(const GatherArgs& a, Stream s) {
  expect_read<T>("gather", {&a.x});
  expect_either<T>("gather", {&a.y});
  each<T>("gather", s, a.index.numel(), a.x.cols(), {&a.x, &a.y},
          Gather<T>{a.x, a.y, a.index.ptr<int32_t>(), a.x.rows(), a.accumulate}, true);
}

template <class T>
void scatter_add_cuda(const ScatterAddArgs& a, Stream s) {
  scatter_rows<T>("scatter_add", a.x, a.index, a.y, a.accumulate, s);
}

}  // namespace

STRATA_CUDA_KERNEL("gather", GatherArgs, gather_cuda)
STRATA_CUDA_HALF_KERNEL("gather", GatherArgs, gather_cuda)
STRATA_CUDA_KERNEL("scatter_add", ScatterAddArgs, scatter_add_cuda)
STRATA_CUDA_HALF_KERNEL("scatter_add", ScatterAddArgs, scatter_add_cuda)

}  // namespace strata
