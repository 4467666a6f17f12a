// The arguments of the attention kernels on CUDA, which keys a query sees and where they lie.
#pragma once

#include "core/kernels/pack.cuh"
#include "core/ops/attend.h"
#include "core/ops/attend_workspace_cuda.h"

namespace strata {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;
constexpr int64_t kNoWindow = int64_t{1} << 30;

__device__ __forceinline__ float exp2_of(float x) { return exp2f(x); }
__device__ __forceinline__ double exp2_of(double x) { return exp2(x); }

// Keys [lo, hi), which a query sees.
struct KeyRange {
  int lo, hi;
};

// The arguments as plain numbers and typed pointers; a pitch is in elements from token to token.
template <class T>
struct Attention {
  using A = Accum<T>;
  int batch, q_len, kv_len, n_heads, n_kv_heads, dim;
  int group;  // query heads of a key-value head
  const T *q, *k, *v;
  T* y;
  A* lse;
  int64_t q_pitch, k_pitch, v_pitch, y_pitch;
  PagesRef k_pages, v_pages;
  int32_t* documents;  // (2, batch, kv_len), filled by find_documents; or null
  const int32_t* seq_idx;
  A query, cap, slope;  // score = query * q k^T, or cap * tanh(query * q k^T), in units of log 2
  int window;           // 0: none
  bool causal, packs;   // packs: all rows lie on 16 bytes

  explicit Attention(const AttendArgs& a)
      : batch(int(a.q.shape[0])),
        q_len(int(a.q.shape[1])),
        kv_len(a.k ? int(a.k.shape[1]) : 0),
        n_heads(int(a.options.n_heads)),
        n_kv_heads(int(a.options.n_kv_heads)),
        dim(int(a.options.head_dim)),
        group(n_heads / n_kv_heads),
        q(a.q.ptr<T>()),
        k(a.k.ptr<T>()),
        v(a.v.ptr<T>()),
        y(a.y.ptr<T>()),
        lse(a.lse.ptr<A>()),
        q_pitch(a.q.pitch),
        k_pitch(a.k.pitch),
        v_pitch(a.v.pitch),
        y_pitch(a.y.pitch),
        k_pages(a.k_pages),
        v_pages(a.v_pages),
        documents(a.seq_idx ? a.workspace.ptr<int32_t>() : nullptr),
        seq_idx(a.seq_idx.ptr<int32_t>()),
        cap(A(a.options.softcap * kLog2E)),
        slope(A(a.options.scale)),
        window(int(a.options.window < kNoWindow ? a.options.window : kNoWindow)),
        causal(a.options.causal),
        packs(dim % kPack<T> == 0 && packable(a.q) && packable(a.k) && packable(a.v) &&
              packable(a.y) && packable(a.k_pages) && packable(a.v_pages)) {
    query =
        A(a.options.softcap > 0 ? a.options.scale / a.options.softcap : a.options.scale * kLog2E);
  }

  static bool packable(const Tensor& x) { return strata::packable(x); }
  static bool packable(const PagesRef& x) {
    return !x || (reinterpret_cast<uintptr_t>(x.base) % 16 == 0 && x.page_bytes % 16 == 0 &&
                  x.token_bytes % 16 == 0);
  }

  __device__ __forceinline__ int end(int b) const {  // of the keys of sequence b
    return k_pages ? k_pages.lengths[b] + q_len : kv_len;
  }
  // Keys that query t of sequence b sees. Both ends grow with t.
  __device__ __forceinline__ KeyRange key_range(int b, int t) const {
    const int last = end(b), p = last - q_len + t;
    int lo = 0, hi = causal ? p + 1 : last;
    if (window > 0) {
      lo = max(0, p - window + 1);
      hi = min(hi, p + window);
    }
    if (documents) {
      lo = max(lo, documents[int64_t(b) * kv_len + p]);
      hi = min(hi, documents[int64_t(batch + b) * kv_len + p]);
    }
    return {min(lo, hi), hi};
  }
  // Element offset of head h of query t in a (batch, q_len, n_heads * head_dim) tensor.
  __device__ __forceinline__ int64_t offset(int b, int t, int h, int64_t pitch) const {
    return (int64_t(b) * q_len + t) * pitch + int64_t(h) * dim;
  }
  // The same in (batch, q_len, n_heads).
  __device__ __forceinline__ int64_t head_offset(int b, int t, int h) const {
    return (int64_t(b) * q_len + t) * n_heads + h;
  }
};

// The keys or values of one sequence and one key-value head.
template <class T>
struct Rows {
  const T* dense;
  const char* base;
  const int32_t* table;
  int64_t pitch, page_bytes;

  __device__ __forceinline__ Rows(const Attention<T>& a, const T* x, int64_t x_pitch,
                                  const PagesRef& pages, int b, int g)
      : dense(x + int64_t(b) * a.kv_len * x_pitch + int64_t(g) * a.dim),
        base(nullptr),
        table(nullptr),
        pitch(x_pitch),
        page_bytes(pages.page_bytes) {
    if (!pages) return;
    base = static_cast<const char*>(pages.base) + int64_t(g) * a.dim * int64_t(sizeof(T));
    table = pages.table + b * pages.table_pitch;
    pitch = pages.token_bytes / int64_t(sizeof(T));
  }
  // Row of token t; the rows up to the end of t's page follow at `pitch`.
  __device__ __forceinline__ const T* at(int t) const {
    if (!base) return dense + t * pitch;
    const char* page = base + table[t / int(kPageTokens)] * page_bytes;
    return reinterpret_cast<const T*>(page) + t % int(kPageTokens) * pitch;
  }
};

// Whether some query of t0 ... t1 must not see some key of [j0, j0 + keys).
template <class T>
__device__ __forceinline__ bool is_masked(const Attention<T>& a, int b, int t0, int t1, int j0,
                                          int keys) {
  return a.key_range(b, t1).lo > j0 || a.key_range(b, t0).hi < j0 + keys;
}

// documents (2, batch, kv_len): first and one-past-last position of the run of equal seq_idx. Block
// (b, 0) finds the firsts, block (b, 1) walks row b from its end and finds the others.
template <class T>
__global__ void find_documents_kernel(Attention<T> a) {
  __shared__ int room[kThreads / kWarp];
  const int b = blockIdx.x, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, n = a.kv_len;
  const bool back = blockIdx.y == 1;
  const int32_t* id = a.seq_idx + int64_t(b) * n;
  int32_t* out = a.documents + (int64_t(back) * a.batch + b) * n;
  int before = 0;  // the latest start before this chunk
  for (int from = 0; from < n; from += kThreads) {
    const int u = from + int(threadIdx.x), t = back ? n - 1 - u : u;
    int start = u > 0 && u < n && id[t] != id[back ? t + 1 : t - 1] ? u : 0;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int other = __shfl_up_sync(kAllLanes, start, offset);
      if (lane >= offset) start = max(start, other);
    }
    if (lane == kWarp - 1) room[warp] = start;
    __syncthreads();
    start = max(start, before);
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) start = max(start, room[w]);
      before = max(before, room[w]);
    }
    if (u < n) out[t] = back ? n - start : start;
    __syncthreads();
  }
}

template <class T>
void find_documents(const Attention<T>& a, cudaStream_t stream) {
  if (!a.documents) return;
  find_documents_kernel<T><<<dim3(unsigned(a.batch), 2), kThreads, 0, stream>>>(a);
}

}  // namespace
}  // namespace strata
