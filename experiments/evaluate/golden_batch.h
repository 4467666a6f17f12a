// The inputs of a golden model folder: token ids, and the parts of stored values that belong to
// some of their positions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/evaluate/golden_file.h"

namespace strata::golden {

// Token ids as the i32 tensors that a model takes.
struct Ids {
  std::vector<int32_t> data;
  int64_t rows = 0, cols = 0;
  Tensor tensor() { return view_of(data.data(), {rows, cols}, DType::i32); }
};

// Columns [begin, end) of stored ids.
Ids columns_of(const Values& ids, int64_t begin, int64_t end);

// Each position predicts the next token, the last one nothing.
Ids labels_of(const Values& ids);

// Positions [begin, end) of values of shape (batch, length, width).
std::vector<double> positions_of(const Values& values, int64_t begin, int64_t end);

}  // namespace strata::golden
