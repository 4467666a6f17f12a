#include "core/ops/embedding.h"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/scatter_rows.cuh"

namespace strata {
namespace {

// A kernel cannot throw: a token outside of the vocabulary gives a row of NaN, and no gradient.
template <class T>
struct Embed {
  Tensor table, y;
  const int32_t* ids;
  int64_t vocab_size;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const int64_t id = ids[r];
    Pack<T, V> p;
    if (id >= 0 && id < vocab_size) {
      p = load<T, V>(table, id, c);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] = narrow_to<T>(Accum<T>(NAN));
    }
    store(y, r, c, p);
  }
};

template <class T>
void embedding_cuda(const EmbeddingArgs& a, Stream s) {
  expect_read<T>("embedding", {&a.table, &a.y});
  each<T>("embedding", s, a.y.rows(), a.y.cols(), {&a.table, &a.y},
          Embed<T>{a.table, a.y, a.ids.ptr<int32_t>(), a.table.rows()}, true);
}

template <class T>
void embedding_backward_cuda(const EmbeddingBackwardArgs& a, Stream s) {
  scatter_rows<T>("embedding_backward", a.dy, a.ids, a.dtable.grad, a.dtable.accumulate, s);
}

}  // namespace

STRATA_CUDA_KERNEL("embedding", EmbeddingArgs, embedding_cuda)
STRATA_CUDA_HALF_KERNEL("embedding", EmbeddingArgs, embedding_cuda)
STRATA_CUDA_KERNEL("embedding_backward", EmbeddingBackwardArgs, embedding_backward_cuda)
STRATA_CUDA_BF16_KERNEL("embedding_backward", EmbeddingBackwardArgs, embedding_backward_cuda)

}  // namespace strata
