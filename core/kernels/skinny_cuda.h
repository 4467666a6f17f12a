// Products of a few rows with a large matrix, as decoding does them: the matrix is read once, at
// the speed of memory. What stands before and after such a product in a decoded token can be fused
// into it.
#pragma once

#include "core/contract/context.h"

namespace strata {

// y = f(norm(x) W^T + bias) + residual, with x (rows, k), W (n, k), y (rows, n), all of T: bf16 or
// f16, summed in float32. ld_* are distances of rows in elements.
template <class T>
struct SkinnyProduct {
  int64_t rows = 0, n = 0, k = 0;
  const T* x = nullptr;
  int64_t ld_x = 0;
  const T* w = nullptr;
  int64_t ld_w = 0;
  T* y = nullptr;
  int64_t ld_y = 0;

  const T* bias = nullptr;      // (n,)
  bool relu2 = false;           // f(z) = max(z, 0)^2, else z
  const T* residual = nullptr;  // (rows, n), may be y
  int64_t ld_residual = 0;

  // norm(x) = x / sqrt(mean(x^2) + eps) * weight, the RMS norm over all of k; without a weight x
  // stays as it is.
  const float* norm_weight = nullptr;  // (k,)
  bool weight_plus_one = false;        // the weight is 1 + norm_weight
  float eps = 0;

  // The kernel before this one in the stream does not write W or norm_weight: on Hopper they are
  // read while it ends (a programmatic dependent launch).
  bool weights_are_still = false;
};

constexpr int kSkinnyRows = 16;

// Whether skinny_cuda takes this product: at most kSkinnyRows rows; k a multiple of 8; rows of x
// and W on 16 bytes; with a norm, weights that fit into shared memory (13000 do everywhere).
template <class T>
STRATA_API bool skinny_takes(const SkinnyProduct<T>& p);

// The order of every sum depends on the shape and the number of multiprocessors alone. Throws Error
// when skinny_takes says no.
template <class T>
STRATA_API void skinny_cuda(Stream stream, const SkinnyProduct<T>& p);

}  // namespace strata
