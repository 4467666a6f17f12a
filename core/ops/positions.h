// positions[b][t]: how many tokens of the same sequence and document came before. Integers, no
// gradient.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct PositionsArgs {
  Tensor seq_idx;    // (batch, seq_len) i32 or absent: one document a row
  Tensor start;      // (batch,) i32 or absent: tokens that the sequence held before
  Tensor positions;  // (batch, seq_len) i32
};

// seq_idx: (batch, seq_len) i32 or absent, start: (batch,) i32 or absent -> (batch, seq_len) i32.
// A row begins at its start, or at 0; a document that begins inside of a row, at 0.
STRATA_API Tensor positions(Context& cx, Tensor seq_idx, Tensor start, int64_t batch,
                            int64_t seq_len);

}  // namespace strata
