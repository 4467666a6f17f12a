#include "core/ops/positions.h"

namespace strata {

static const Op<PositionsArgs> positions_op("positions");

Tensor positions(Context& cx, Tensor seq_idx, Tensor start, int64_t batch, int64_t seq_len) {
  Tensor out = cx.alloc({batch, seq_len}, DType::i32);
  positions_op(cx, DType::i32, {seq_idx, start, out});
  return out;
}

}  // namespace strata
