#include "core/train/data.h"

#include <algorithm>

namespace strata {

DataSource::~DataSource() = default;

TokenBatch HostBatch::view() {
  const Shape shape{batch, seq_len};
  TokenBatch out{
      view_of(tokens.data(), shape, DType::i32), view_of(labels.data(), shape, DType::i32), {}};
  if (!seq_idx.empty()) out.seq_idx = view_of(seq_idx.data(), shape, DType::i32);
  return out;
}

int64_t HostBatch::labelled() const {
  return std::count_if(labels.begin(), labels.end(), [](int32_t l) { return l != kNoLabel; });
}

}  // namespace strata
