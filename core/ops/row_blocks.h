// Sums over rows run block by block, and then over the blocks in order. The blocks depend on the
// shape alone, so that the result does not depend on the number of threads.
#pragma once

#include "core/contract/tensor.h"

namespace strata {

constexpr int64_t kMaxRowBlocks = 32;

struct RowBlocks {
  int64_t rows, size, count;
  STRATA_INLINE int64_t begin(int64_t block) const { return block * size; }
  STRATA_INLINE int64_t end(int64_t block) const {
    return (block + 1) * size < rows ? (block + 1) * size : rows;
  }
};

STRATA_INLINE RowBlocks row_blocks(int64_t rows) {
  const int64_t even = (rows + kMaxRowBlocks - 1) / kMaxRowBlocks;
  const int64_t size = even < 16 ? 16 : even;
  return {rows, size, (rows + size - 1) / size};
}

// Rows of the workspace for such sums. CUDA kernels may cut rows into more blocks, to fill a card.
STRATA_INLINE int64_t partial_rows(const Tensor& x) {
  constexpr int64_t kMost = 640;
  const int64_t blocks = row_blocks(x.rows()).count;
  if (x.device.kind != DeviceKind::cuda || size_of(x.dtype) != 2) return blocks;
  const int64_t most = x.rows() < kMost ? x.rows() : kMost;
  return blocks > most ? blocks : most;
}

}  // namespace strata
