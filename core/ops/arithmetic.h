// Elementwise arithmetic: add, sub, mul of two tensors, and scale by a number.
//
// The second operand may have the shape of the first, or be broadcast over it: the trailing axes of
// it ((d,) or (heads, d) under (batch, seq_len, heads, d)), one number per row ((..., 1)), trailing
// axes with a last axis of 1 ((heads, 1)), or a single number ((1,)).
#pragma once

#include "core/contract/context.h"

namespace strata {

enum class Arithmetic : uint8_t { add, sub, mul };

struct ArithmeticArgs {
  Arithmetic kind;
  Tensor a, b, y;  // a, y: (..., d); row r of a meets row r % rows(b) of b
};

struct ArithmeticBackwardArgs {
  Arithmetic kind;
  Tensor a, b, dy;
  GradTarget da, db;
  Tensor partial;  // (row blocks, numel(b)) when b is broadcast over rows, no less than f32
};

// Each: a, b -> y with the shape of a. Throws Error when b cannot be broadcast over a.
STRATA_API Tensor add(Context& cx, Tensor a, Tensor b);
STRATA_API Tensor sub(Context& cx, Tensor a, Tensor b);
STRATA_API Tensor mul(Context& cx, Tensor a, Tensor b);

struct ScaleArgs {
  Tensor x, y;
  double factor, shift;
  bool accumulate;
};

// y = factor x + shift, elementwise.
STRATA_API Tensor scale(Context& cx, Tensor x, double factor, double shift = 0);

// A packed copy of x: what a slice needs before its last axis can be reshaped.
STRATA_API Tensor copy(Context& cx, Tensor x);

// x, or a copy when it shares columns of a variable with one of `others`: for operations whose
// backward writes several gradients side by side or in an order of its own.
STRATA_API Tensor distinct(Context& cx, Tensor x, std::initializer_list<Tensor> others);

}  // namespace strata
