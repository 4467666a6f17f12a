#include "core/ops/embedding.h"

#include "core/ops/help.h"

namespace strata {

static const Op<EmbeddingArgs> embedding_op("embedding");
static const Op<EmbeddingBackwardArgs> embedding_backward_op("embedding_backward");

Tensor embedding(Context& cx, Tensor ids, Tensor table) {
  if (ids.dtype != DType::i32)
    throw Error(std::string(cx.place()) + ": embedding: ids must be i32, got " +
                name_of(ids.dtype));
  Shape shape = ids.shape;
  shape.dim[shape.rank++] = table.cols();
  Tensor y = cx.track(cx.alloc(shape, table.dtype));
  embedding_op(cx, y.dtype, {ids, table, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dtable = cx.grad_target(table);
    if (dtable.wanted) embedding_backward_op(cx, y.dtype, {ids, dy, dtable});
  });
  return y;
}

STRATA_OP_HELP("embedding", R"(rows of a table by token id
  Tensor embedding(Context&, Tensor ids, Tensor table);
  ids   (batch, seq_len) i32      table (vocab_size, d)      y (batch, seq_len, d)
State: none. Gradient: table, added up in the order of the tokens.
  #include "core/ops/embedding.h"
  Tensor h = embedding(cx, tokens, embed_);)")

}  // namespace strata
