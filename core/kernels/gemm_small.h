// What gemm.cpp and the per-instruction-set gemm_cpu.cpp agree on. Not for layers: see gemm.h.
#pragma once

#include <cstdint>

namespace strata {

template <class T>
using SmallGemm = void (*)(bool ta, bool tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a,
                           int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc);

struct SmallGemmTable {
  SmallGemm<float> f32;
  SmallGemm<double> f64;
};

// Called once per instruction set while the library is loaded; the best one that the CPU runs
// stays.
bool register_gemm(int isa, SmallGemmTable table);

}  // namespace strata
