#include "core/kernels/cuda_path.h"

namespace strata {

static CudaPath chosen = CudaPath::best;

void set_cuda_path(CudaPath path) { chosen = path; }
CudaPath cuda_path() { return chosen; }

}  // namespace strata
