// Operations that only move: split, concat, reshape. Splits and most reshapes are views.
#pragma once

#include <vector>

#include "core/contract/context.h"

namespace strata {

// Views of consecutive columns; the sizes must sum to the last axis of x.
STRATA_API std::vector<Tensor> split(Context& cx, Tensor x, const std::vector<int64_t>& sizes);

// x with another shape of as many elements. A view; a copy only where a slice gets another last
// axis. Throws Error when the counts differ.
STRATA_API Tensor reshape(Context& cx, Tensor x, const Shape& shape);

// One after the other along the last axis; all other axes are equal.
STRATA_API Tensor concat(Context& cx, const std::vector<Tensor>& parts);

}  // namespace strata
