// Tiles of attention on bf16 and f16, multiplied by a warp's matrix unit (core/kernels/mma.cuh).
// Operands lie in shared memory as (rows, D) at padded_row(D).
#pragma once

#include <type_traits>

#include "core/kernels/mma.cuh"
#include "core/ops/cuda/attend_args.cuh"

namespace strata {
namespace {

constexpr float kNoScore = -1e30f;  // less than every score

__device__ __forceinline__ float tanh_fast(float x) {
  return 1.f - __fdividef(2.f, 1.f + exp2_fast(x * float(2 * kLog2E)));
}

// to (kRows, D) = the rows row_at(0), row_at(1), ...; where that is null, and behind dim, zero.
// Thread `thread` of kCopying takes part. Arrives with the next commit_copies and wait.
template <class T, int kRows, int D, int kCopying, class RowAt>
__device__ __forceinline__ void copy_rows(T* to, const Attention<T>& a, int thread,
                                          const RowAt& row_at) {
  constexpr int kPacks = D / 8, P = padded_row(D);
#pragma unroll
  for (int i = thread; i < kRows * kPacks; i += kCopying) {
    const int r = i / kPacks, c = i % kPacks * 8;
    const T* from = row_at(r);
    T* at = to + r * P + c;
    if (a.packs) {
      const bool have = from && c < a.dim;
      copy_async(at, have ? from + c : a.q, have ? 16 : 0);
    } else {
#pragma unroll
      for (int e = 0; e < 8; ++e) at[e] = from && c + e < a.dim ? from[c + e] : narrow_to<T>(0.f);
    }
  }
}

// to (kRows, D) = the rows from `first` on, `pitch` apart, as far as in [begin, end); others are
// zero and are not read.
template <class T, int kRows, int D, int kCopying>
__device__ __forceinline__ void copy_tile(T* to, const Attention<T>& a, const T* first,
                                          int64_t pitch, int begin, int end, int thread) {
  constexpr int kPacks = D / 8, P = padded_row(D), kStep = kCopying / kPacks;
  if constexpr (kCopying % kPacks == 0 && kRows % kStep == 0) {
    if (a.packs && a.dim == D && begin <= 0 && end >= kRows) {  // all there: no tests
      const T* from = first + thread / kPacks * pitch + thread % kPacks * 8;
      T* at = to + thread / kPacks * P + thread % kPacks * 8;
#pragma unroll
      for (int r = 0; r < kRows; r += kStep, from += kStep * pitch) copy_async(at + r * P, from);
      return;
    }
  }
  copy_rows<T, kRows, D, kCopying>(
      to, a, thread, [&](int r) { return r >= begin && r < end ? first + r * pitch : nullptr; });
}
// The keys or values from j0 on, which lie in one page, as far as in [lo, hi): what lies outside
// may never have been written.
template <class T, int kRows, int D, int kCopying>
__device__ __forceinline__ void copy_keys(T* to, const Attention<T>& a, const Rows<T>& rows, int j0,
                                          int lo, int hi, int thread) {
  copy_tile<T, kRows, D, kCopying>(to, a, rows.at(j0), rows.pitch, lo - j0, hi - j0, thread);
}

// s += x z^T for M tiles of 16 rows of x (M * 16, D) and N tiles of 8 rows of z (N * 8, D).
template <class T, int D, int M, int N>
__device__ __forceinline__ void multiply_rows(const T* x, const T* z, float (&s)[M][N][4]) {
  constexpr int P = padded_row(D);
  const uint32_t xs = shared_address(x + lane_offset(P)), zs = shared_address(z + lane_offset_b(P));
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t row[M][4];
#pragma unroll
    for (int i = 0; i < M; ++i) load_matrix(row[i], xs + 2 * (i * 16 * P + k));
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      uint32_t column[4];
      load_matrix(column, zs + 2 * (j * 8 * P + k));
#pragma unroll
      for (int i = 0; i < M; ++i) {
        mma<T>(s[i][j], row[i], column[0], column[1]);
        mma<T>(s[i][j + 1], row[i], column[2], column[3]);
      }
    }
  }
}

// o += w z, for weights w (M * 16, N * 8) in registers and z (N * 8, D).
template <class T, int D, int M, int N>
__device__ __forceinline__ void add_weighted(const float (&w)[M][N][4], const T* z,
                                             float (&o)[M][D / 8][4]) {
  constexpr int P = padded_row(D);
  const uint32_t zs = shared_address(z + lane_offset(P));
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    uint32_t row[M][4];
#pragma unroll
    for (int i = 0; i < M; ++i) {
      row[i][0] = pack2<T>(w[i][k][0], w[i][k][1]);
      row[i][1] = pack2<T>(w[i][k][2], w[i][k][3]);
      row[i][2] = pack2<T>(w[i][k + 1][0], w[i][k + 1][1]);
      row[i][3] = pack2<T>(w[i][k + 1][2], w[i][k + 1][3]);
    }
#pragma unroll
    for (int d = 0; d < D / 8; d += 2) {
      uint32_t column[4];
      load_matrix_transposed(column, zs + 2 * (k * 8 * P + d * 8));
#pragma unroll
      for (int i = 0; i < M; ++i) {
        mma<T>(o[i][d], row[i], column[0], column[1]);
        mma<T>(o[i][d + 1], row[i], column[2], column[3]);
      }
    }
  }
}

// A thread's rows of a tile of 16: half 0 is row lane / 4, half 1 the row 8 below. Elements 2 half
// and 2 half + 1 of an accumulator of 8 columns are columns lane % 4 * 2 + {0, 1}.
__device__ __forceinline__ int lane_row() { return int(threadIdx.x) % kWarp / 4; }
__device__ __forceinline__ int lane_column() { return int(threadIdx.x) % 4 * 2; }
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// Scores in units of `unit` log 2: q k^T itself, or behind the soft cap.
template <class T>
__device__ __forceinline__ float score_unit(const Attention<T>& a) {
  return a.cap > 0 || a.query < 0 ? 1.f : a.query;
}
template <class T, int M, int N>
__device__ __forceinline__ void cap_scores(const Attention<T>& a, float (&s)[M][N][4]) {
  if (a.cap == 0 && a.query >= 0) return;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = s[i][j][e] * a.query;
        s[i][j][e] = a.cap > 0 ? a.cap * tanh_fast(x) : x;
      }
}

// An online softmax over the scores of M * 16 rows, of which a thread holds 2 M.
template <int M>
struct Softmax {
  float top[M][2], sum[M][2];  // sum: of this thread's keys

  __device__ __forceinline__ Softmax() {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) top[i][half] = kNoScore, sum[i][half] = 0;
  }
  // s becomes weights; what was summed before, o among it, shrinks to the new maximum.
  template <int N, int C>
  __device__ __forceinline__ void add(float (&s)[M][N][4], float (&o)[M][C][4], float unit) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = top[i][half];
#pragma unroll
        for (int j = 0; j < N; ++j)
          most = fmaxf(most, fmaxf(s[i][j][2 * half], s[i][j][2 * half + 1]));
        most = quad_max(most);
        const float shrink = exp2_fast((top[i][half] - most) * unit), shift = -most * unit;
        top[i][half] = most;
        float part = sum[i][half] * shrink;
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[i][j][e] = exp2_fast(fmaf(s[i][j][e], unit, shift));
            part += s[i][j][e];
          }
        sum[i][half] = part;
#pragma unroll
        for (int c = 0; c < C; ++c) {
          o[i][c][2 * half] *= shrink;
          o[i][c][2 * half + 1] *= shrink;
        }
      }
  }
};

// Calls f with the least width that head_dim fits, as a constant.
template <class F>
void with_half_width(int dim, const F& f) {
  if (dim <= 64) return f(std::integral_constant<int, 64>{});
  if (dim <= 80) return f(std::integral_constant<int, 80>{});
  if (dim <= 96) return f(std::integral_constant<int, 96>{});
  if (dim <= 128) return f(std::integral_constant<int, 128>{});
  if (dim <= 192) return f(std::integral_constant<int, 192>{});
  if (dim <= 256) return f(std::integral_constant<int, 256>{});
  kernel_error("attend: head_dim must be at most 256 on CUDA, got %d", dim);
}

// kernel<<<blocks, threads>>> with `bytes` of shared memory.
template <class... Args>
void launch_shared(void (*kernel)(Args...), int64_t blocks, int threads, int bytes,
                   cudaStream_t stream, std::type_identity_t<Args>... args) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             "attend");
  if (blocks > 0) kernel<<<unsigned(blocks), threads, size_t(bytes), stream>>>(args...);
}

// Only a kernel's own number type can be read.
inline void check_types(const AttendArgs& a) {
  if ((a.k && (a.k.dtype != a.q.dtype || a.v.dtype != a.q.dtype)) || a.y.dtype != a.q.dtype)
    kernel_error("attend: q, k, v and y must be of one type, got q %s, y %s", name_of(a.q.dtype),
                 name_of(a.y.dtype));
}

}  // namespace
}  // namespace strata
