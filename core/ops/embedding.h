// Rows of a table by token id. The gradient adds rows in the order of the tokens, whatever the
// number of threads.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct EmbeddingArgs {
  Tensor ids;    // (batch, seq_len) i32
  Tensor table;  // (vocab_size, d_model)
  Tensor y;      // (batch, seq_len, d_model)
};

struct EmbeddingBackwardArgs {
  Tensor ids, dy;
  GradTarget dtable;
};

// ids: (batch, seq_len) i32, table: (vocab_size, d_model) -> (batch, seq_len, d_model). Throws
// Error for an id outside of [0, vocab_size).
STRATA_API Tensor embedding(Context& cx, Tensor ids, Tensor table);

}  // namespace strata
