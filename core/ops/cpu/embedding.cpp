#include "core/ops/embedding.h"

#include <algorithm>

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void embedding_cpu(const EmbeddingArgs& a, Stream) {
  const int32_t* ids = a.ids.ptr<int32_t>();
  const int64_t rows = a.y.rows(), cols = a.y.cols();
#pragma omp parallel for if (rows * cols > 1 << 17)
  for (int64_t r = 0; r < rows; ++r) std::copy_n(a.table.row<T>(ids[r]), cols, a.y.row<T>(r));
}

// Columns are split, not rows: every element of the table sums its tokens in their order.
template <class T>
void embedding_backward_cpu(const EmbeddingBackwardArgs& a, Stream) {
  const int32_t* ids = a.ids.ptr<int32_t>();
  const int64_t rows = a.dy.rows(), cols = a.dy.cols();
  constexpr int64_t kBlock = 64;
#pragma omp parallel for if (rows * cols > 1 << 17)
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, cols);
    for (int64_t r = 0; r < rows; ++r) {
      const T* dy = a.dy.row<T>(r);
      T* g = a.dtable.grad.row<T>(ids[r]);
      for (int64_t c = begin; c < end; ++c) g[c] += dy[c];
    }
  }
}

}  // namespace

STRATA_CPU_KERNEL("embedding", EmbeddingArgs, embedding_cpu)
STRATA_CPU_KERNEL("embedding_backward", EmbeddingBackwardArgs, embedding_backward_cpu)

}  // namespace strata
