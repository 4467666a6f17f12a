#include "core/ops/tally.h"

namespace strata {

static const Op<TallyArgs> tally_op("tally");

void tally(Context& cx, Tensor values, Tensor sum, double weight, Tensor factor) {
  if (values.numel() != sum.numel() || !values.contiguous())
    throw Error(std::string(cx.place()) + ": tally: values " + to_string(values.shape) +
                " do not fit sums " + to_string(sum.shape));
  tally_op(cx, values.dtype, {values, sum, factor, weight});
}

}  // namespace strata
