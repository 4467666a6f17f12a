#include "core/ops/cuda/attend_hopper.h"
namespace strata {
bool attend_backward_hopper(const AttendBackwardArgs&, Stream) { return false; }
}
