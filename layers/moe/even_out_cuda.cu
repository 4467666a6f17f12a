// Selection bias of the experts after a step. The loads are on the host, so the directions travel
// as a kernel argument.
#include "core/kernels/device.cuh"
#include "layers/moe/route.h"

namespace strata::moe {
namespace {

struct Directions {
  int8_t of[kMaxExperts];  // +1: too few tokens, -1: too many
};

template <class T>
__global__ void even_out_kernel(Tensor bias, Directions directions, double rate) {
  STRATA_GRID_LOOP(e, bias.numel()) bias.ptr<T>()[e] += T(rate * double(directions.of[e]));
}

template <class T>
void even_out_cuda(const EvenOutArgs& a, Stream stream) {
  const int64_t n = a.bias.numel();
  const double mean = a.offsets[n] / double(n);
  Directions directions;
  for (int64_t e = 0; e < n; ++e) {
    const double load = a.offsets[e + 1] - a.offsets[e];
    directions.of[e] = int8_t((load < mean) - (load > mean));
  }
  even_out_kernel<T><<<blocks_for(n), kThreads, 0, stream_of(stream)>>>(a.bias, directions, a.rate);
  check_launch("moe_even_out");
}

}  // namespace

STRATA_CUDA_KERNEL("moe_even_out", EvenOutArgs, even_out_cuda)

}  // namespace strata::moe
