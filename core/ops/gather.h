// Rows by index. All axes but the last of x enumerate its rows.
//   gather   y[i] = x[index[i]]           scatter_add   y[index[i]] += x[i], from zero
// Each is the other's gradient. Sums run in the order of i, whatever the number of threads.
#pragma once

#include "core/contract/context.h"

namespace strata {

struct GatherArgs {
  Tensor x;      // (n, d)
  Tensor index;  // (m,) i32; a negative index is no row
  Tensor y;      // (m, d)
  bool accumulate;
};

struct ScatterAddArgs {
  Tensor x;      // (m, d)
  Tensor index;  // (m,) i32
  Tensor y;      // (n, d)
  bool accumulate;
};

// x: (..., d) with n rows, index: (...) i32 in [-1, n) -> index.shape + (d). Rows of index -1 are
// zero. Throws Error when an index lies outside.
STRATA_API Tensor gather(Context& cx, Tensor x, Tensor index);

// x: (..., d), as many indices as rows -> (n, d); rows of index -1 are dropped.
STRATA_API Tensor scatter_add(Context& cx, Tensor x, Tensor index, int64_t n);

}  // namespace strata
