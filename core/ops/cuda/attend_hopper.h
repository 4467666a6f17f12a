// The attention kernels for compute capability 9.0, which stand in for those of every device.
#pragma once

#include "core/ops/attend.h"

namespace strata {

// Launches the kernel and says true if the device, the sizes and the layout suit it.
bool attend_hopper(const AttendArgs& args, Stream s);
bool attend_backward_hopper(const AttendBackwardArgs& args, Stream s);

}  // namespace strata
