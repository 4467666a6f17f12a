#include "core/ops/embedding.h"

#include <algorithm>

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

void check_ids(const Tensor& ids, int64_t vocab_size) {
  const int32_t* id = ids.ptr<int32_t>();
  for (int64_t i = 0; i < ids.numel(); ++i)
    if (id[i] < 0 || id[i] >= vocab_size)
      kernel_error("token %d is outside of the vocabulary of %ld", id[i], long(vocab_size));
}

template <class T>
void embedding_cpu(const EmbeddingArgs& a, Stream) {
  const int32_t* ids = a.ids.ptr<int32_t>();
  const int64_t rows = a.y.rows(), cols = a.y.cols();
  check_ids(a.ids, a.table.rows());
  parallel_for(rows, grain_for(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(a.table.row<T>(ids[r]), cols, a.y.row<T>(r));
  });
}

// Columns are split, not rows: every element of the table sums its tokens in their order.
template <class T>
void embedding_backward_cpu(const EmbeddingBackwardArgs& a, Stream) {
  const int32_t* ids = a.ids.ptr<int32_t>();
  const int64_t rows = a.dy.rows(), cols = a.dy.cols();
  constexpr int64_t kBlock = 64;
  parallel_for(
      (cols + kBlock - 1) / kBlock, grain_for(rows * kBlock), [&](int64_t first, int64_t last) {
        const int64_t begin = first * kBlock, end = std::min(last * kBlock, cols);
        if (!a.dtable.accumulate)
          for (int64_t v = 0; v < a.dtable.grad.rows(); ++v)
            std::fill(a.dtable.grad.row<T>(v) + begin, a.dtable.grad.row<T>(v) + end, T(0));
        for (int64_t r = 0; r < rows; ++r) {
          const T* dy = a.dy.row<T>(r);
          T* g = a.dtable.grad.row<T>(ids[r]);
          for (int64_t c = begin; c < end; ++c) g[c] += dy[c];
        }
      });
}

}  // namespace

STRATA_CPU_KERNEL("embedding", EmbeddingArgs, embedding_cpu)
STRATA_CPU_KERNEL("embedding_backward", EmbeddingBackwardArgs, embedding_backward_cpu)

}  // namespace strata
