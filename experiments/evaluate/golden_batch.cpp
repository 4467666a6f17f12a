#include "experiments/evaluate/golden_batch.h"

#include "core/ops/lm_head_loss.h"

namespace strata::golden {

Ids columns_of(const Values& ids, int64_t begin, int64_t end) {
  Ids out;
  out.rows = ids.shape[0];
  out.cols = end - begin;
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = begin; c < end; ++c) {
      out.data.push_back(int32_t(ids.data[size_t(r * ids.shape[1] + c)]));
    }
  }
  return out;
}

Ids labels_of(const Values& ids) {
  Ids out = columns_of(ids, 0, ids.shape[1]);
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t c = 0; c < out.cols; ++c) {
      const size_t at = size_t(r * out.cols + c);
      out.data[at] = c + 1 < out.cols ? out.data[at + 1] : kNoLabel;
    }
  }
  return out;
}

std::vector<double> positions_of(const Values& values, int64_t begin, int64_t end) {
  std::vector<double> out;
  const int64_t length = values.shape[1], width = values.shape[2];
  for (int64_t r = 0; r < values.shape[0]; ++r) {
    const auto row = values.data.begin() + r * length * width;
    out.insert(out.end(), row + begin * width, row + end * width);
  }
  return out;
}

}  // namespace strata::golden
