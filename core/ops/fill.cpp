#include "core/ops/fill.h"

namespace strata {

static const Op<FillArgs> fill_op("fill");

void fill(Context& cx, Tensor x, double value) { fill_op(cx, x.dtype, {x, value}); }

}  // namespace strata
