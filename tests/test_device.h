// Where tests of operations run: the CPU, or the device that STRATA_TEST_DEVICE names ("cuda").
#pragma once

#include "core/contract/tensor.h"

namespace strata::test {

// Loads the device's library at first use.
Device test_device();

}  // namespace strata::test
