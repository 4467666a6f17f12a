#include "core/kernels/gemm.h"

#include <omp.h>

#include <algorithm>
#include <type_traits>

#include "core/kernels/gemm_onednn.h"
#include "core/kernels/gemm_small.h"
#include "core/kernels/parallel.h"

namespace strata {
namespace {

// Products (m*n*k) from which float goes to oneDNN, and from which work is shared among threads.
// Measured on Zen 5 with AVX-512: up to 2^27, and with few rows, the own kernels are as fast or
// faster.
constexpr int64_t kLibraryWork = int64_t{1} << 27;
constexpr int64_t kLibraryRows = 17;
constexpr int64_t kForkProducts = int64_t{1} << 18;
// With few rows the product is bound by reading B, and forking pays earlier.
constexpr int64_t kForkBytes = 256 * 1024;

struct Chosen {
  int isa = -1;
  SmallGemmTable table{};
};
Chosen& chosen() {
  static Chosen best;
  return best;
}

bool runs_on_this_cpu(int isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == 2)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
  return isa == 0 || isa == 3;  // 3: built for this machine only
}

template <class T>
SmallGemm<T> small() {
  if constexpr (std::is_same_v<T, float>)
    return chosen().table.f32;
  else
    return chosen().table.f64;
}

// C = beta C, for products without a sum.
template <class T>
void scale(int64_t m, int64_t n, T beta, T* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == T(0) ? T(0) : beta * c[i * ldc + j];
}

// The own kernel on strips of C, one per thread. Where a strip ends changes no element's sum.
template <class T>
void threaded(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
              const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  const SmallGemm<T> run = small<T>();
  const bool fork = m * n * k >= kForkProducts || n * k * int64_t(sizeof(T)) >= kForkBytes;
  const int64_t threads = fork && !omp_in_parallel() ? omp_get_max_threads() : 1;
  const bool rows = m > n && m >= 64 * threads;
  const int64_t unit = rows ? 14 : 32, extent = rows ? m : n;
  const int64_t strips = std::min(threads, (extent + unit - 1) / unit);
  if (strips <= 1)
    return run(ta == Trans::yes, tb == Trans::yes, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  const int64_t width = ((extent + strips - 1) / strips + unit - 1) / unit * unit;
#pragma omp parallel for num_threads(int(strips)) schedule(static, 1)
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t from = s * width, size = std::min(width, extent - from);
    if (size <= 0) continue;
    if (rows)
      run(ta == Trans::yes, tb == Trans::yes, size, n, k, alpha,
          a + from * (ta == Trans::yes ? 1 : lda), lda, b, ldb, beta, c + from * ldc, ldc);
    else
      run(ta == Trans::yes, tb == Trans::yes, m, size, k, alpha, a, lda,
          b + from * (tb == Trans::yes ? ldb : 1), ldb, beta, c + from, ldc);
  }
}

}  // namespace

bool register_gemm(int isa, SmallGemmTable table) {
  Chosen& best = chosen();
  if (isa > best.isa && runs_on_this_cpu(isa)) best = {isa, table};
  return true;
}

template <class T>
void gemm(Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
          const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  if (m <= 0 || n <= 0) return;
  if (k <= 0 || alpha == T(0)) return scale(m, n, beta, c, ldc);
  if constexpr (std::is_same_v<T, float>) {
    if (m * n * k >= kLibraryWork && m >= kLibraryRows && n > 4 && !omp_in_parallel())
      return onednn_gemm(ta == Trans::yes, tb == Trans::yes, m, n, k, alpha, a, lda, b, ldb, beta,
                         c, ldc);
  }
  threaded(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

template <class T>
void gemm_batched(int64_t count, Trans ta, Trans tb, int64_t m, int64_t n, int64_t k, T alpha,
                  const T* a, int64_t lda, int64_t stride_a, const T* b, int64_t ldb,
                  int64_t stride_b, T beta, T* c, int64_t ldc, int64_t stride_c) {
  const int64_t work = m * n * k;
  // Many products: whole products per thread. Few large ones: each shared among the threads.
  if (count >= 4 * omp_get_max_threads() || work < kForkProducts) {
    parallel_for(count, std::max<int64_t>(1, kForkProducts / std::max<int64_t>(work, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     if (m <= 0 || n <= 0) continue;
                     if (k <= 0 || alpha == T(0))
                       scale(m, n, beta, c + i * stride_c, ldc);
                     else
                       small<T>()(ta == Trans::yes, tb == Trans::yes, m, n, k, alpha,
                                  a + i * stride_a, lda, b + i * stride_b, ldb, beta,
                                  c + i * stride_c, ldc);
                   }
                 });
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    gemm(ta, tb, m, n, k, alpha, a + i * stride_a, lda, b + i * stride_b, ldb, beta,
         c + i * stride_c, ldc);
}

template <class T>
void gemm_grouped(int64_t count, const GemmItem<T>* items, Trans ta, Trans tb, T alpha, T beta) {
  int64_t total = 0, largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t work = items[i].m * items[i].n * items[i].k;
    total += work;
    largest = std::max(largest, work);
  }
  const auto one = [&](int64_t i) {
    const GemmItem<T>& g = items[i];
    gemm(ta, tb, g.m, g.n, g.k, alpha, g.a, g.lda, g.b, g.ldb, beta, g.c, g.ldc);
  };
  // A group that one product dominates is better shared product by product.
  if (largest * omp_get_max_threads() > total || total < kForkProducts) {
    for (int64_t i = 0; i < count; ++i) one(i);
    return;
  }
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) one(i);
  });
}

#define STRATA_GEMM(T)                                                                             \
  template STRATA_API void gemm<T>(Trans, Trans, int64_t, int64_t, int64_t, T, const T*, int64_t,  \
                                   const T*, int64_t, T, T*, int64_t);                             \
  template STRATA_API void gemm_batched<T>(int64_t, Trans, Trans, int64_t, int64_t, int64_t, T,    \
                                           const T*, int64_t, int64_t, const T*, int64_t, int64_t, \
                                           T, T*, int64_t, int64_t);                               \
  template STRATA_API void gemm_grouped<T>(int64_t, const GemmItem<T>*, Trans, Trans, T, T);
STRATA_GEMM(float)
STRATA_GEMM(double)
#undef STRATA_GEMM

}  // namespace strata
