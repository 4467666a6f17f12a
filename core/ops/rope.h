// Rotary position embedding in the half-split form (RoFormer, arXiv 2104.09864): in every head the
// pair (x_i, x_{i + rotary_dim/2}) is turned by the angle position * f_i, f_i =
// theta^(-2i/rotary_dim). Elements behind rotary_dim pass through.
#pragma once

#include <vector>

#include "core/contract/context.h"

namespace strata {

struct RopeOptions {
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // even; 0: head_dim
  double theta = 10000;
  // Llama 3 scaling of low frequencies; factor 0: none.
  double factor = 0, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position = 8192;
};

constexpr int kMaxRotaryPairs = 256;

// y = x turned by +angle, or by -angle (the backward). In place is allowed.
struct RopeArgs {
  Tensor x;          // (batch, seq_len, n_heads * head_dim)
  Tensor positions;  // (batch, seq_len) i32
  Tensor y;
  bool inverse = false, accumulate = false;
  int64_t head_dim = 0;
  int pairs = 0;
  double frequencies[kMaxRotaryPairs] = {};
};

// f_i in radians per position, rotary_dim / 2 of them, with Llama 3 scaling if factor > 0: waves
// longer than original_max_position / low_freq_factor are slowed by factor, those shorter than
// original_max_position / high_freq_factor stay, the others are blended.
STRATA_API std::vector<double> rope_inverse_frequencies(const RopeOptions& options);

// x: (batch, seq_len, n_heads * head_dim), a slice is fine; positions: (batch, seq_len) i32 -> y as
// x. Throws Error when the width is not a multiple of head_dim, or rotary_dim is odd or too large.
STRATA_API Tensor rope(Context& cx, Tensor x, Tensor positions, const RopeOptions& options);

}  // namespace strata
