#include "core/ops/tally.h"

#include "core/kernels/register.h"

namespace strata {
namespace {

template <class T>
void tally_cpu(const TallyArgs& a, Stream) {
  const double factor = a.factor ? a.weight * *a.factor.ptr<double>() : a.weight;
  for (int64_t i = 0; i < a.sum.numel(); ++i)
    a.sum.ptr<double>()[i] += factor * double(a.values.ptr<T>()[i]);
}

}  // namespace

STRATA_CPU_KERNEL("tally", TallyArgs, tally_cpu)
STRATA_KERNEL("tally", DeviceKind::cpu, DType::i32, TallyArgs, tally_cpu<int32_t>)
STRATA_KERNEL("tally", DeviceKind::cpu, DType::i64, TallyArgs, tally_cpu<int64_t>)

}  // namespace strata
