// The arguments of the gradient of attention on bf16, and what it needs of every query first.
// Weights are computed again from the saved log-sum-exp:
//   p = 2^(s - lse), ds = p * (dy v^T - delta), delta = sum(dy * y),
//   dq = ds k, dk = ds^T q, dv = p^T dy.
#pragma once

#include "core/ops/cuda/attend_mma.cuh"

namespace strata {
namespace {

template <class T>
struct HalfBackward : Attention<T> {
  const T* dy;
  int64_t dy_pitch;
  float *lse2, *delta;  // (batch, n_heads, padded): lse in units of log 2 and delta
  int padded;
  GradTarget dq, dk, dv;

  explicit HalfBackward(const AttendBackwardArgs& args)
      : Attention<T>(args.forward),
        dy(args.dy.ptr<T>()),
        dy_pitch(args.dy.pitch),
        dq(args.dq),
        dk(args.dk),
        dv(args.dv) {
    this->packs = this->packs && strata::packable(args.dy);
    const AttendWorkspaceCuda size(args.forward, sizeof(T));
    padded = int(size.padded_queries);
    lse2 = reinterpret_cast<float*>(args.forward.workspace.ptr<char>() + size.documents);
    delta = lse2 + int64_t(this->batch) * this->n_heads * padded;
  }
  __device__ __forceinline__ int64_t padded_offset(int b, int h) const {
    return (int64_t(b) * this->n_heads + h) * padded;
  }
  // Keys that queries t and t + 1, ... see; queries behind the last see what the last sees.
  __device__ __forceinline__ KeyRange range_of(int b, int t) const {
    return this->key_range(b, min(t, this->q_len - 1));
  }
};

// lse2 and delta, a warp per query and head. A query behind the last has weight zero, as has one
// that sees no key.
template <class T>
__global__ void __launch_bounds__(kThreads) row_sums_kernel(HalfBackward<T> a) {
  constexpr int kWarps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t n = int64_t(a.batch) * a.padded * a.n_heads, warps = int64_t(gridDim.x) * kWarps;
  for (int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp; i < n; i += warps) {
    const int h = int(i % a.n_heads), t = int(i / a.n_heads % a.padded);
    const int b = int(i / a.n_heads / a.padded);
    float sum = 0;
    if (t < a.q_len) {
      const T* y = a.y + a.offset(b, t, h, a.y_pitch);
      const T* dy = a.dy + a.offset(b, t, h, a.dy_pitch);
      if (a.packs) {
        for (int d = lane * 8; d < a.dim; d += kWarp * 8) {
          const Pack<float, 8> x = widen(load_pack<8>(y + d)), z = widen(load_pack<8>(dy + d));
#pragma unroll
          for (int e = 0; e < 8; ++e) sum += x.v[e] * z.v[e];
        }
      } else {
        for (int d = lane; d < a.dim; d += kWarp) sum += wide(y[d]) * wide(dy[d]);
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      const float lse = t < a.q_len ? a.lse[a.head_offset(b, t, h)] * float(kLog2E) : INFINITY;
      a.lse2[a.padded_offset(b, h) + t] = isfinite(lse) ? lse : -kNoScore;
      a.delta[a.padded_offset(b, h) + t] = sum;
    }
  }
}

template <class T>
void find_row_sums(const HalfBackward<T>& a, cudaStream_t stream) {
  const int64_t n = int64_t(a.batch) * a.padded * a.n_heads;
  row_sums_kernel<T><<<blocks_for(n * kWarp), kThreads, 0, stream>>>(a);
}

// Queries [begin, end) of sequence b that may see a key of [j0, j1).
template <class T>
__device__ __forceinline__ KeyRange queries_seeing(const Attention<T>& a, int b, int j0, int j1) {
  int lo = a.causal ? j0 : 0, hi = a.kv_len;  // positions of queries
  if (a.window > 0) {
    lo = max(lo, j0 - a.window + 1);
    hi = min(hi, j1 - 1 + a.window);
  }
  if (a.documents) {
    lo = max(lo, a.documents[int64_t(b) * a.kv_len + j0]);
    hi = min(hi, a.documents[int64_t(a.batch + b) * a.kv_len + j1 - 1]);
  }
  const int offset = a.kv_len - a.q_len;
  return {max(0, lo - offset), max(0, hi - offset)};
}

// p and ds in place of a score and of dy v^T, for a query with this lse2 and delta. ds lacks the
// factor slope_of(a).
template <class T>
__device__ __forceinline__ void score_gradient(const Attention<T>& a, float lse2, float delta,
                                               float& score, float& ds) {
  if (a.cap > 0) {
    const float x = tanh_fast(score * a.query);
    score = exp2_fast(fmaf(x, a.cap, -lse2));
    ds = score * (ds - delta) * (a.slope * (1.f - x * x));
  } else {
    score = exp2_fast(fmaf(score, a.query, -lse2));
    ds = score * (ds - delta);
  }
}
template <class T>
__device__ __forceinline__ float slope_of(const Attention<T>& a) {
  return a.cap > 0 ? 1.f : a.slope;
}

// to[0], to[1] = or += low, high, as far as a row of `left` elements has them.
template <class T>
__device__ __forceinline__ void put_pair(T* to, float low, float high, int left, bool accumulate) {
  if (left > 0) to[0] = narrow_to<T>(accumulate ? wide(to[0]) + low : low);
  if (left > 1) to[1] = narrow_to<T>(accumulate ? wide(to[1]) + high : high);
}

// Columns c * 8 + lane_column() + {0, 1} of a row of dim elements, from accumulators.
template <class T, int C>
__device__ __forceinline__ void put_row(T* row, const float (&x)[C][4], int half, float factor,
                                        int dim, bool accumulate, bool pairs) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int d = c * 8 + lane_column();
    float low = x[c][2 * half] * factor, high = x[c][2 * half + 1] * factor;
    if (!pairs) {
      put_pair(row + d, low, high, dim - d, accumulate);
    } else if (d < dim) {
      uint32_t* to = reinterpret_cast<uint32_t*>(row + d);
      if (accumulate) {
        const float2 before = unpack2<T>(*to);
        low += before.x, high += before.y;
      }
      *to = pack2<T>(low, high);
    }
  }
}
// Whether rows of heads in x can be written two elements at a time.
inline bool has_pairs(const GradTarget& x, int dim) {
  return dim % 2 == 0 && rows_aligned(x.grad, 4);
}

}  // namespace
}  // namespace strata
