// The register-blocked matrix product, one copy per instruction set: C = alpha op(A) op(B) + beta C
// with row-major matrices. Blocking as in Goto and van de Geijn, "Anatomy of high-performance
// matrix multiplication" (ACM TOMS 34(3), 2008). One thread; the sum over k runs in blocks of kKC
// in increasing order, whatever part of C is asked for, so that a split of C among threads changes
// no bit.
#include <algorithm>
#include <new>

#include "core/kernels/gemm_small.h"
#include "core/kernels/vec.h"

namespace strata {
inline namespace STRATA_ISA_NS {
namespace {

#if defined(__AVX512F__)
constexpr int kMR = 14, kNV = 2;  // 28 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kMR = 6, kNV = 2;  // 12 of 16
#else
constexpr int kMR = 4, kNV = 2;
#endif
constexpr int64_t kKC = 256, kNC = 1024;  // a packed block of B
constexpr int64_t kTiles = 16;       // rows of tiles that share a panel of B while it is cached
constexpr int64_t kDirectRows = 24;  // with fewer rows a plain B is read in place
constexpr int64_t kDotRows = 16;     // with fewer rows a transposed B is not worth packing
constexpr int64_t kAddRows = 2;      // with so few rows a product is bound by reading B
template <class T>
constexpr int kNR = kNV* kLanes<T>;

// A tile of M x (NV vectors, of which the last may be partial): acc = A_tile B_panel.
// a(i, p) = a[i*rs + p*cs]; b row p = b + p*ldb.
template <class T, int M, int NV, bool Part>
__attribute__((noinline)) void tile(int64_t k, const T* __restrict a, int64_t rs, int64_t cs,
                                    const T* __restrict b, int64_t ldb, T alpha, T beta,
                                    T* __restrict c, int64_t ldc, int part) {
  constexpr int n = kLanes<T>;
  Vec<T> acc[M][NV] = {};
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> row[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      row[v] = Part && v == NV - 1 ? load_part(b + v * n, part) : load(b + v * n);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vec<T> x = splat(a[i * rs]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[i][v] += x * row[v];
    }
    a += cs;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      T* to = c + i * ldc + v * n;
      Vec<T> y = alpha * acc[i][v];
      if (Part && v == NV - 1) {
        if (beta != T(0)) y += beta * load_part(to, part);
        store_part(to, y, part);
      } else {
        if (beta != T(0)) y += beta * load(to);
        store(to, y);
      }
    }
  }
}

template <class T>
using Tile = void (*)(int64_t, const T*, int64_t, int64_t, const T*, int64_t, T, T, T*, int64_t,
                      int);

template <class T, int NV, bool Part>
Tile<T> tile_of(int m) {
  static constexpr Tile<T> table[] = {
    tile<T, 1, NV, Part>,
    tile<T, 2, NV, Part>,
    tile<T, 3, NV, Part>,
    tile<T, 4, NV, Part>,
#if defined(__AVX2__)
    tile<T, 5, NV, Part>,
    tile<T, 6, NV, Part>,
#endif
#if defined(__AVX512F__)
    tile<T, 7, NV, Part>,
    tile<T, 8, NV, Part>,
    tile<T, 9, NV, Part>,
    tile<T, 10, NV, Part>,
    tile<T, 11, NV, Part>,
    tile<T, 12, NV, Part>,
    tile<T, 13, NV, Part>,
    tile<T, 14, NV, Part>,
#endif
  };
  return table[m - 1];
}

// Runs one column panel of `cols` <= kNR columns for m <= kMR rows.
template <class T>
STRATA_INLINE void run_tile(int m, int cols, int64_t k, const T* a, int64_t rs, int64_t cs,
                            const T* b, int64_t ldb, T alpha, T beta, T* c, int64_t ldc) {
  constexpr int n = kLanes<T>;
  if (cols == kNR<T>)
    tile_of<T, kNV, false>(m)(k, a, rs, cs, b, ldb, alpha, beta, c, ldc, 0);
  else if (cols > n)
    tile_of<T, kNV, true>(m)(k, a, rs, cs, b, ldb, alpha, beta, c, ldc, cols - n);
  else if (cols == n)
    tile_of<T, 1, false>(m)(k, a, rs, cs, b, ldb, alpha, beta, c, ldc, 0);
  else
    tile_of<T, 1, true>(m)(k, a, rs, cs, b, ldb, alpha, beta, c, ldc, cols);
}

// Packs a panel of B given as `cols` rows of B^T (row stride ld): to(p, j) = from(j, p), kNR wide;
// columns from `cols` on are zero.
template <class T>
void pack_transposed(const T* from, int64_t ld, int64_t cols, int64_t k, T* to) {
  constexpr int n = kLanes<T>;
  for (int64_t j = 0; j < kNR<T>; j += n) {
    const int have = int(std::clamp<int64_t>(cols - j, 0, n));
    for (int64_t p = 0; p < k; p += n) {
      const int part = int(std::min<int64_t>(k - p, n));
      T* out = to + p * kNR<T> + j;
      Vec<T> v[n];
      if (have == n && part == n) {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = load(from + (j + i) * ld + p);
        transpose<T>(v);
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) store(out + i * kNR<T>, v[i]);
      } else {
        for (int i = 0; i < n; ++i)
          v[i] = i >= have   ? Vec<T>{}
                 : part == n ? load(from + (j + i) * ld + p)
                             : load_part(from + (j + i) * ld + p, part);
        transpose<T>(v);
        for (int i = 0; i < part; ++i) store(out + i * kNR<T>, v[i]);
      }
    }
  }
}

// Packs a panel of a plain B: `cols` columns, kNR wide, the others zero.
template <class T>
void pack_plain(const T* from, int64_t ld, int64_t k, int64_t cols, T* to) {
  constexpr int n = kLanes<T>;
  for (int64_t p = 0; p < k; ++p) {
    for (int64_t j = 0; j < kNR<T>; j += n) {
      const int64_t have = std::min<int64_t>(cols - j, n);
      const Vec<T> v = have == n  ? load(from + p * ld + j)
                       : have > 0 ? load_part(from + p * ld + j, int(have))
                                  : Vec<T>{};
      store(to + p * kNR<T> + j, v);
    }
  }
}

// Few rows times a transposed B: dot products of rows, M of A with J of B at a time.
template <class T, int M, int J>
__attribute__((noinline)) void dots(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
                                    T alpha, T beta, T* c, int64_t ldc) {
  constexpr int n = kLanes<T>;
  Vec<T> acc[M][J] = {};
  const auto step = [&](int64_t p, auto get) __attribute__((always_inline)) {
    Vec<T> x[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) x[i] = get(a + i * lda + p);
#pragma GCC unroll 8
    for (int j = 0; j < J; ++j) {
      const Vec<T> y = get(b + j * ldb + p);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) acc[i][j] += x[i] * y;
    }
  };
  int64_t p = 0;
  for (; p + n <= k; p += n)
    step(
        p, [](const T* q) __attribute__((always_inline)) { return load(q); });
  if (p < k) {
    const int part = int(k - p);
    step(
        p, [part](const T* q) __attribute__((always_inline)) { return load_part(q, part); });
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < J; ++j) {
      T& y = c[i * ldc + j];
      y = alpha * sum_lanes<T>(acc[i][j]) + (beta != T(0) ? beta * y : T(0));
    }
}

template <class T, int J>
void dot_columns(int64_t m, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb,
                 T beta, T* c, int64_t ldc) {
  static constexpr decltype(&dots<T, 1, J>) table[] = {dots<T, 1, J>, dots<T, 2, J>, dots<T, 3, J>,
                                                       dots<T, 4, J>, dots<T, 5, J>, dots<T, 6, J>};
  const int64_t groups = (m + 5) / 6, step = (m + groups - 1) / groups;
  for (int64_t i = 0; i < m; i += step)
    table[std::min(m - i, step) - 1](k, a + i * lda, lda, b, ldb, alpha, beta, c + i * ldc, ldc);
}

template <class T>
void dot_product(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b,
                 int64_t ldb, T beta, T* c, int64_t ldc) {
  int64_t j = 0;
  if (m == 1)
    for (; j + 8 <= n; j += 8) dots<T, 1, 8>(k, a, lda, b + j * ldb, ldb, alpha, beta, c + j, ldc);
  for (; j + 4 <= n; j += 4)
    dot_columns<T, 4>(m, k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
  for (; j < n; ++j) dot_columns<T, 1>(m, k, alpha, a, lda, b + j * ldb, ldb, beta, c + j, ldc);
}

// Few rows times a wide plain B: B is read once, row after row, and added into C.
template <class T>
void add_rows(int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t rs, int64_t cs,
              const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  constexpr int64_t block = 2048;  // columns of C that stay in the first cache
  constexpr int R = 8;             // rows of B at a time
  for (int64_t jc = 0; jc < n; jc += block) {
    const int64_t cols = std::min(n - jc, block);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        T& y = c[i * ldc + jc + j];
        y = beta != T(0) ? beta * y : T(0);
      }
    for (int64_t p = 0; p < k; p += R) {
      const int rows = int(std::min<int64_t>(k - p, R));
      for (int64_t i = 0; i < m; ++i) {
        T* y = c + i * ldc + jc;
        const T* from = b + p * ldb + jc;
        T x[R] = {};
        for (int r = 0; r < rows; ++r) x[r] = alpha * a[i * rs + (p + r) * cs];
        if (rows == R) {
          for (int64_t j = 0; j < cols; ++j) {
            T sum = y[j];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) sum += x[r] * from[r * ldb + j];
            y[j] = sum;
          }
        } else {
          for (int r = 0; r < rows; ++r)
            for (int64_t j = 0; j < cols; ++j) y[j] += x[r] * from[r * ldb + j];
        }
      }
    }
  }
}

// The packed block of B of one thread, allocated at its first product and kept (about 2 MB).
struct Buffer {
  void* data = std::aligned_alloc(64, kKC*(kNC + 64) * sizeof(double));
  ~Buffer() { std::free(data); }
};

template <class T>
T* buffer() {
  static thread_local Buffer own;
  return static_cast<T*>(own.data);
}

template <class T>
void product(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda,
             const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  const int64_t rs = ta ? 1 : lda, cs = ta ? lda : 1;
  if (tb && !ta && m <= kDotRows && k >= (m == 1 ? 1 : 2) * kLanes<T>)
    return dot_product(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (!tb && m <= kAddRows && n * k > 64 * 1024)
    return add_rows(m, n, k, alpha, a, rs, cs, b, ldb, beta, c, ldc);
  // Rows of near-equal height instead of full tiles and a thin rest, which would wait on latency.
  const int64_t tiles = (m + kMR - 1) / kMR, step = (m + tiles - 1) / tiles;
  const bool pack = tb || m > kDirectRows;
  for (int64_t jc = 0; jc < n; jc += kNC) {
    const int64_t nc = std::min(n - jc, kNC);
    for (int64_t pc = 0; pc < k; pc += kKC) {
      const int64_t kc = std::min(k - pc, kKC);
      const T now = pc == 0 ? beta : T(1);
      T* packed = pack ? buffer<T>() : nullptr;
      for (int64_t j = 0; pack && j < nc; j += kNR<T>) {
        const int64_t cols = std::min<int64_t>(nc - j, kNR<T>);
        if (tb)
          pack_transposed(b + (jc + j) * ldb + pc, ldb, cols, kc, packed + j * kc);
        else
          pack_plain(b + pc * ldb + jc + j, ldb, kc, cols, packed + j * kc);
      }
      for (int64_t ic = 0; ic < m; ic += step * kTiles) {
        const int64_t end = std::min(m, ic + step * kTiles);
        for (int64_t j = 0; j < nc; j += kNR<T>) {
          const int cols = int(std::min<int64_t>(nc - j, kNR<T>));
          const T* panel = pack ? packed + j * kc : b + pc * ldb + jc + j;
          for (int64_t i = ic; i < end; i += step)
            run_tile<T>(int(std::min(end - i, step)), cols, kc, a + i * rs + pc * cs, rs, cs, panel,
                        pack ? kNR<T> : ldb, alpha, now, c + i * ldc + jc + j, ldc);
        }
      }
    }
  }
}

const bool registered = register_gemm(STRATA_ISA, {&product<float>, &product<double>});

}  // namespace
}  // namespace STRATA_ISA_NS
}  // namespace strata
