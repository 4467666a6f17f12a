#include "core/ops/positions.h"

#include "core/kernels/register.h"

namespace strata {
namespace {

void positions_cpu(const PositionsArgs& a, Stream) {
  for (int64_t b = 0; b < a.positions.rows(); ++b) {
    const int32_t* document = a.seq_idx ? a.seq_idx.row<int32_t>(b) : nullptr;
    int32_t* out = a.positions.row<int32_t>(b);
    int32_t next = a.start ? a.start.ptr<int32_t>()[b] : 0;
    for (int64_t t = 0; t < a.positions.cols(); ++t) {
      if (document && t > 0 && document[t] != document[t - 1]) next = 0;
      out[t] = next++;
    }
  }
}

}  // namespace

STRATA_KERNEL("positions", DeviceKind::cpu, DType::i32, PositionsArgs, positions_cpu)

}  // namespace strata
