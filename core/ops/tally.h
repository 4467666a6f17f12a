// sum += weight * factor * values, in float64: losses and counts that grow over microbatches
// without the host looking at them. No gradient.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct TallyArgs {
  Tensor values;  // (n,)
  Tensor sum;     // (n,) f64
  Tensor factor;  // (1,) f64, or absent: 1
  double weight;
};

// values: (n,) f32, f64, i32 or i64; sum: (n,) f64. Throws Error when the lengths differ.
STRATA_API void tally(Context& cx, Tensor values, Tensor sum, double weight = 1,
                      Tensor factor = {});

}  // namespace strata
