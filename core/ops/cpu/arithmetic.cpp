#include "core/ops/arithmetic.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"
#include "core/ops/row_blocks.h"

namespace strata {
namespace {

// y[c] = f(a[c], b[c]), b one number per row when `wide` is false. Row r meets row r % rows(b).
template <class T, class F>
STRATA_INLINE void each_row(const Tensor& a, const Tensor& b, const Tensor& y, const F& f) {
  const int64_t rows = a.rows(), d = a.cols(), b_rows = b.rows();
  const bool wide = b.cols() == d;
  parallel_for(rows, grain_for(d), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T *pa = a.row<T>(r), *pb = b.row<T>(b_rows == rows ? r : r % b_rows);
      T* py = y.row<T>(r);
      if (wide) {
        for (int64_t c = 0; c < d; ++c) f(pa[c], pb[c], py[c]);
      } else {
        const T value = pb[0];
        for (int64_t c = 0; c < d; ++c) f(pa[c], value, py[c]);
      }
    }
  });
}

template <class T>
void arithmetic_cpu(const ArithmeticArgs& s, Stream) {
  switch (s.kind) {
    case Arithmetic::add:
      return each_row<T>(s.a, s.b, s.y, [](T a, T b, T& y) { y = a + b; });
    case Arithmetic::sub:
      return each_row<T>(s.a, s.b, s.y, [](T a, T b, T& y) { y = a - b; });
    case Arithmetic::mul:
      return each_row<T>(s.a, s.b, s.y, [](T a, T b, T& y) { y = a * b; });
  }
}

// One row's part of db: += sign dy (a where it is a product), summed over the row if b has one
// number for it.
template <class T>
STRATA_INLINE void add_row(const T* a, const T* dy, T sign, T* db, int64_t d, bool wide) {
  if (wide) {
    if (a)
      for (int64_t c = 0; c < d; ++c) db[c] += dy[c] * a[c];
    else
      for (int64_t c = 0; c < d; ++c) db[c] += sign * dy[c];
    return;
  }
  T sum = 0;
  if (a) {
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < d; ++c) sum += dy[c] * a[c];
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < d; ++c) sum += dy[c];
  }
  db[0] += sign * sum;
}

template <class T>
void backward_b(const ArithmeticBackwardArgs& s) {
  const int64_t rows = s.a.rows(), d = s.a.cols(), b_rows = s.b.rows(), width = s.b.cols();
  const bool wide = width == d, product = s.kind == Arithmetic::mul;
  const T sign = s.kind == Arithmetic::sub ? T(-1) : T(1);
  const bool direct = b_rows == rows;
  const RowBlocks blocks = row_blocks(rows);
  parallel_for(blocks.count, grain_for(blocks.size * d), [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      T* partial = direct ? nullptr : s.partial.row<T>(block);
      if (partial)
        for (int64_t i = 0; i < b_rows * width; ++i) partial[i] = 0;
      for (int64_t r = blocks.begin(block); r < blocks.end(block); ++r) {
        T* db = direct ? s.db.grad.row<T>(r) : partial + r % b_rows * width;
        if (direct && !s.db.accumulate)
          for (int64_t c = 0; c < width; ++c) db[c] = 0;
        add_row(product ? s.a.row<T>(r) : nullptr, s.dy.row<T>(r), sign, db, d, wide);
      }
    }
  });
  if (direct) return;
  for (int64_t r = 0; r < b_rows; ++r) {
    T* db = s.db.grad.row<T>(r);
    if (!s.db.accumulate)
      for (int64_t c = 0; c < width; ++c) db[c] = 0;
    for (int64_t block = 0; block < blocks.count; ++block) {
      const T* partial = s.partial.row<T>(block) + r * width;
      for (int64_t c = 0; c < width; ++c) db[c] += partial[c];
    }
  }
}

template <class T>
void arithmetic_backward_cpu(const ArithmeticBackwardArgs& s, Stream) {
  if (s.da.wanted) {
    const bool product = s.kind == Arithmetic::mul;
    if (product && s.da.accumulate)
      each_row<T>(s.dy, s.b, s.da.grad, [](T dy, T b, T& y) { y += dy * b; });
    else if (product)
      each_row<T>(s.dy, s.b, s.da.grad, [](T dy, T b, T& y) { y = dy * b; });
    else if (s.da.accumulate)
      each_row<T>(s.dy, s.dy, s.da.grad, [](T dy, T, T& y) { y += dy; });
    else
      each_row<T>(s.dy, s.dy, s.da.grad, [](T dy, T, T& y) { y = dy; });
  }
  if (s.db.wanted) backward_b<T>(s);
}

template <class T>
void scale_cpu(const ScaleArgs& s, Stream) {
  const T factor = T(s.factor), shift = T(s.shift);
  if (s.accumulate)
    each_row<T>(s.x, s.x, s.y, [=](T x, T, T& y) { y += factor * x + shift; });
  else
    each_row<T>(s.x, s.x, s.y, [=](T x, T, T& y) { y = factor * x + shift; });
}

}  // namespace

STRATA_CPU_KERNEL("arithmetic", ArithmeticArgs, arithmetic_cpu)
STRATA_CPU_KERNEL("arithmetic_backward", ArithmeticBackwardArgs, arithmetic_backward_cpu)
STRATA_CPU_KERNEL("scale", ScaleArgs, scale_cpu)

}  // namespace strata
