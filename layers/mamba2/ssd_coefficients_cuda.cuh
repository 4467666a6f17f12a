// Step size and decay of one token, as ssd_scan.h defines them.
#pragma once

#include "core/kernels/device.cuh"
#include "core/kernels/half.cuh"
#include "layers/mamba2/ssd_layout_cuda.h"

namespace strata::mamba2 {
namespace {

// Whether token t of sequence b, other than its first, belongs to another document than the one
// before.
__device__ __forceinline__ bool starts_document(const SsdScanArgs& args, int64_t b, int64_t t) {
  if (!args.seq_idx || t == 0) return false;
  const int32_t* id = args.seq_idx.ptr<int32_t>() + b * args.x.shape[1] + t;
  return id[0] != id[-1];
}

// Of token t of head h, in the accumulation type of T.
template <class T>
struct Step {
  using A = Accum<T>;
  A dt, a, slope, open;  // slope: da/d(dt); open: d(dt)/d(dt_raw)

  // From what is stored; reset: a document starts here.
  __device__ __forceinline__ Step(const SsdScanOptions& o, A dt_raw, A bias, A a_log, bool reset) {
    const A low = A(o.dt_min), high = A(o.dt_max);
    const A rate = exp_of(a_log);
    const A raw = dt_raw + bias;
    const A soft = (raw > A(0) ? raw : A(0)) + log1p_of(exp_of(raw > A(0) ? -raw : raw));
    open = soft >= low && soft <= high ? sigmoid_of(raw) : A(0);
    dt = soft < low ? low : soft > high ? high : soft;
    const A decay = (o.neg_eig ? A(2) : A(1)) * exp_of(-rate * dt);
    a = reset ? A(0) : decay - (o.neg_eig ? A(1) : A(0));
    slope = reset ? A(0) : -rate * decay;
  }
  __device__ __forceinline__ Step(const SsdScanArgs& args, int64_t b, int64_t t, int64_t h)
      : Step(args.options, wide(args.dt.row<T>(b * args.x.shape[1] + t)[h]),
             args.dt_bias ? args.dt_bias.ptr<A>()[h] : A(0), args.a_log.ptr<A>()[h],
             starts_document(args, b, t)) {}
};

}  // namespace
}  // namespace strata::mamba2
