// What the card in hand reaches, for the floors of the rows.
#pragma once

#include <cuda_runtime.h>

#include "tests/bench/device/work.h"

namespace strata::bench {

// The best of several launch shapes of a reading kernel over 4 GiB, and of several cuBLASLt
// algorithms for a bf16 product of 8192 x 8192 x 8192 random numbers. Medians. Throws Error.
Ceilings measure_ceilings(cudaStream_t stream);

}  // namespace strata::bench
