// Which kernels CUDA devices run: the best that the card has, or those that every card from compute
// capability 8.0 on has (mma.sync, at most 99 KB of shared memory a block). For tests and
// measurements of the latter on a card that has both.
#pragma once

#include "core/contract/error.h"

namespace strata {

enum class CudaPath { best, portable };

STRATA_API void set_cuda_path(CudaPath path);  // before the first kernel runs
STRATA_API CudaPath cuda_path();

}  // namespace strata
