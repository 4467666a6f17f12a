// h_t = a_t h_{t-1} + b_t. Every column of every row of a token is a lane that runs over time. A
// block takes 32 lanes; where lanes are few and sequences long it cuts time into segments, one warp
// each: first every segment finds the product of its decays and what it makes of a zero state, then
// it runs again from the state that the segments before it leave. No division, no logarithm.
#include "core/ops/decay_scan.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

constexpr int kAhead = 8;      // tokens loaded before the first is used
constexpr int kSegments = 16;  // at most

STRATA_INLINE bool starts_document(const Tensor& seq_idx, int64_t b, int64_t seq_len, int64_t t) {
  if (!seq_idx || t == 0) return false;
  const int32_t* doc = seq_idx.ptr<int32_t>() + b * seq_len;
  return doc[t] != doc[t - 1];
}

// Segments per sequence and their length, from shapes alone.
struct Cut {
  int64_t segments, length;
  Cut(int64_t lanes, int64_t seq_len) {
    constexpr int64_t kEnoughLanes = 64 * 1024, kLeast = 32;
    int64_t most = lanes >= kEnoughLanes ? 1 : kEnoughLanes / lanes;
    if (most > seq_len / kLeast) most = seq_len / kLeast;
    segments = most < 1 ? 1 : most > kSegments ? kSegments : most;
    length = (seq_len + segments - 1) / segments;
    segments = (seq_len + length - 1) / length;
  }
};

// a h + x. A decay of zero drops any state, be it infinite: documents stay apart.
template <class T>
__device__ __forceinline__ T advance(T a, T h, T x) {
  return a == T(0) ? x : a * h + x;
}

// One column of row n of the tokens of sequence b. The decay of a row lies in (batch, seq_len, n)
// unless `wide`. Places are in elements from a tensor's first.
struct Lane {
  int64_t a, a_step, b, n, c, per_token;

  __device__ __forceinline__ Lane(const Tensor& decay, bool wide, int64_t seq_len, int64_t rows,
                                  int64_t b, int64_t n, int64_t c)
      : b(b), n(n), c(c), per_token(rows) {
    a = wide ? (b * seq_len * rows + n) * decay.pitch + c : b * seq_len * decay.pitch + n;
    a_step = wide ? rows * decay.pitch : decay.pitch;
  }
  // The place of token 0 in a tensor shaped as b; tokens are step(x) elements apart.
  __device__ __forceinline__ int64_t first(const Tensor& x) const {
    return (b * x.shape[1] * per_token + n) * x.pitch + c;
  }
  __device__ __forceinline__ int64_t step(const Tensor& x) const { return per_token * x.pitch; }
};

// Runs h <- a h + x over the tokens [begin, end) of a lane; each(t, h) sees every new h.
template <class T, class D, class F>
__device__ __forceinline__ Accum<T> run(const Lane& lane, const D* decay, const Tensor& seq_idx,
                                        const T* x, int64_t x_step, int64_t seq_len, int64_t begin,
                                        int64_t end, Accum<T> h, Accum<T>* product, const F& each) {
  for (int64_t t0 = begin; t0 < end; t0 += kAhead) {
    Accum<T> a[kAhead], v[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t t = t0 + i < end ? t0 + i : end - 1;
      a[i] = wide(decay[lane.a + t * lane.a_step]);
      v[i] = wide(x[t * x_step]);
      if (starts_document(seq_idx, lane.b, seq_len, t)) a[i] = 0;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (t0 + i < end) {
        h = advance(a[i], h, v[i]);
        *product *= a[i];
        each(t0 + i, h);
      }
  }
  return h;
}

// blockDim: 32 lanes, segments.
template <class T, class D>
__global__ void __launch_bounds__(kSegments* kWarp)
    decay_scan_kernel(DecayScanArgs s, int64_t length) {
  using A = Accum<T>;
  __shared__ A products[kSegments][kWarp], ends[kSegments][kWarp];  // (segment, lane)
  const int64_t batch = s.b.shape[0], seq_len = s.b.shape[1], width = s.b.cols();
  const int64_t rows = s.b.rows() / (batch * seq_len), per_sequence = rows * width;
  const int64_t i = int64_t(blockIdx.x) * kWarp + threadIdx.x;
  const bool here = i < batch * per_sequence;
  const int64_t e = here ? i % per_sequence : 0, b = here ? i / per_sequence : 0;
  const Lane lane(s.a, s.wide, seq_len, rows, b, e / width, e % width);
  const T* x = s.b.ptr<T>() + lane.first(s.b);
  const int segment = threadIdx.y, segments = blockDim.y;
  const int64_t x_step = lane.step(s.b), begin = segment * length;
  const int64_t end = begin + length < seq_len ? begin + length : seq_len;
  A h = here && s.state ? s.state.row<A>(b)[e] : A(0), product = 1;
  if (segments > 1) {
    if (here && segment + 1 < segments) {
      ends[segment][threadIdx.x] = run<T>(lane, s.a.ptr<D>(), s.seq_idx, x, x_step, seq_len, begin,
                                          end, A(0), &product, [](int64_t, A) {});
      products[segment][threadIdx.x] = product;
    }
    __syncthreads();
    for (int j = 0; here && j < segment; ++j)
      h = advance(products[j][threadIdx.x], h, ends[j][threadIdx.x]);
  }
  if (!here) return;
  T* y = s.h.ptr<T>() + lane.first(s.h);
  const int64_t y_step = lane.step(s.h);
  h = run<T>(lane, s.a.ptr<D>(), s.seq_idx, x, x_step, seq_len, begin, end, h, &product,
             [&](int64_t t, A value) { y[t * y_step] = narrow_to<T>(value); });
  if (s.state && segment + 1 == segments) s.state.row<A>(b)[e] = h;
}

// g_t = dh_t + a_{t+1} g_{t+1} from `g` = a_{end} g_{end}; returns a_begin g_begin. each(t, g,
// before(t), first) sees every g_t, what was loaded for it, and whether token t starts without a
// state.
template <class T, class D, class B, class F>
__device__ __forceinline__ Accum<T> run_back(const Lane& lane, const D* decay,
                                             const Tensor& seq_idx, const T* dh, int64_t step,
                                             int64_t seq_len, int64_t begin, int64_t end,
                                             Accum<T> g, Accum<T>* product, const B& before,
                                             const F& each) {
  using A = Accum<T>;
  for (int64_t t0 = end - 1; t0 >= begin; t0 -= kAhead) {
    A a[kAhead], v[kAhead], loaded[kAhead];
    bool first[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t t = t0 - i > begin ? t0 - i : begin;
      v[i] = wide(dh[t * step]);
      loaded[i] = before(t);
      first[i] = t == 0 || starts_document(seq_idx, lane.b, seq_len, t);
      a[i] = first[i] ? A(0) : wide(decay[lane.a + t * lane.a_step]);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (t0 - i >= begin) {
        g += v[i];
        each(t0 - i, g, loaded[i], first[i]);
        g = advance(a[i], g, A(0));
        *product *= a[i];
      }
  }
  return g;
}

// db_t = g_t, da_t = g_t h_{t-1}. kRows: a warp keeps to one row of b and walks its columns in
// tiles of 32, adding up da of the row (one decay per row); else lanes are columns of any row.
template <class T, class D, bool kRows>
__global__ void __launch_bounds__(kSegments* kWarp)
    decay_scan_backward_kernel(DecayScanBackwardArgs s, int64_t length) {
  using A = Accum<T>;
  __shared__ A products[kSegments][kWarp], ends[kSegments][kWarp];  // (segment, lane)
  const int64_t batch = s.h.shape[0], seq_len = s.h.shape[1], width = s.h.cols();
  const int64_t rows = s.h.rows() / (batch * seq_len);
  const int segment = threadIdx.y, segments = blockDim.y;
  const int64_t begin = segment * length;
  const int64_t end = begin + length < seq_len ? begin + length : seq_len;
  for (int64_t from = 0; from < (kRows ? width : 1); from += kWarp) {
    int64_t row = blockIdx.x, c = from + threadIdx.x;  // row: of (batch, rows)
    if (!kRows) {
      const int64_t i = int64_t(blockIdx.x) * kWarp + threadIdx.x;
      row = i / width, c = i % width;
    }
    const bool here = kRows ? c < width : row < batch * rows;
    if (!here) {
      if (!kRows) row = 0;
      c = 0;
    }
    const Lane lane(s.a, s.wide, seq_len, rows, row / rows, row % rows, c);
    const T *dh = s.dh.ptr<T>() + lane.first(s.dh), *h = s.h.ptr<T>() + lane.first(s.h);
    const int64_t dh_step = lane.step(s.dh), h_step = lane.step(s.h);
    A g = 0, product = 1;
    if (segments > 1) {
      if (segment > 0) {
        ends[segment][threadIdx.x] = run_back<T>(
            lane, s.a.ptr<D>(), s.seq_idx, dh, dh_step, seq_len, begin, end, A(0), &product,
            [](int64_t) { return A(0); }, [](int64_t, A, A, bool) {});
        products[segment][threadIdx.x] = product;
      }
      __syncthreads();
      for (int j = segments - 1; j > segment; --j)
        g = advance(products[j][threadIdx.x], g, ends[j][threadIdx.x]);
      __syncthreads();  // the next tile writes again
    }
    const int64_t db = s.db.wanted ? lane.first(s.db.grad) : 0;
    const int64_t db_step = s.db.wanted ? lane.step(s.db.grad) : 0;
    const Lane to(s.da.grad, s.wide, seq_len, rows, row / rows, row % rows, c);
    run_back<T>(
        lane, s.a.ptr<D>(), s.seq_idx, dh, dh_step, seq_len, begin, end, g, &product,
        [&](int64_t t) { return wide(h[(t > 0 ? t - 1 : 0) * h_step]); },
        [&](int64_t t, A value, A h_before, bool first) {
          if (s.da.wanted) {  // before db: a and b may share a gradient
            A term = here && !first ? value * h_before : A(0);
            if (kRows) term = warp_sum(term);
            if (kRows ? threadIdx.x == 0 : here)
              put_at<D>(s.da.grad, to.a + t * to.a_step, term, s.da.accumulate || from > 0);
          }
          if (s.db.wanted && here) put_at<T>(s.db.grad, db + t * db_step, value, s.db.accumulate);
        });
  }
}

// Calls f with a null pointer to the type of the decays.
template <class T, class F>
void with_decays(const char* op, const Tensor& a, const F& f) {
  expect_either<T>(op, {&a});
  if (a.dtype == dtype_of<T>()) return f(static_cast<T*>(nullptr));
  f(static_cast<Accum<T>*>(nullptr));
}

template <class T>
void decay_scan_cuda(const DecayScanArgs& s, Stream stream) {
  expect_read<T>("decay_scan", {&s.b, &s.h});
  const int64_t lanes = s.b.numel() / s.b.shape[1];
  const Cut cut(lanes, s.b.shape[1]);
  with_decays<T>("decay_scan", s.a, [&]<class D>(D*) {
    decay_scan_kernel<T, D>
        <<<unsigned((lanes + kWarp - 1) / kWarp), dim3(kWarp, unsigned(cut.segments)), 0,
           stream_of(stream)>>>(s, cut.length);
  });
  check_launch("decay_scan");
}

template <class T>
void decay_scan_backward_cuda(const DecayScanBackwardArgs& s, Stream stream) {
  if (!s.da.wanted && !s.db.wanted) return;
  expect_read<T>("decay_scan_backward", {&s.h, &s.dh});
  expect_either<T>("decay_scan_backward", {&s.da.grad, &s.db.grad});
  const int64_t lanes = s.h.numel() / s.h.shape[1], width = s.h.cols();
  const bool by_rows = s.da.wanted && !s.wide && width > 1;
  // A warp per row of b, or per 32 lanes.
  const int64_t warps = by_rows ? lanes / width : (lanes + kWarp - 1) / kWarp;
  const Cut cut(warps * kWarp, s.h.shape[1]);
  const dim3 block(kWarp, unsigned(cut.segments));
  with_decays<T>("decay_scan_backward", s.a, [&]<class D>(D*) {
    const auto kernel =
        by_rows ? decay_scan_backward_kernel<T, D, true> : decay_scan_backward_kernel<T, D, false>;
    kernel<<<unsigned(warps), block, 0, stream_of(stream)>>>(s, cut.length);
  });
  check_launch("decay_scan_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("decay_scan", DecayScanArgs, decay_scan_cuda)
STRATA_CUDA_HALF_KERNEL("decay_scan", DecayScanArgs, decay_scan_cuda)
STRATA_CUDA_KERNEL("decay_scan_backward", DecayScanBackwardArgs, decay_scan_backward_cuda)
STRATA_CUDA_BF16_KERNEL("decay_scan_backward", DecayScanBackwardArgs, decay_scan_backward_cuda)

}  // namespace strata
