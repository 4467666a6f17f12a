// Depthwise causal convolution over time, the short filter in front of state-space mixers:
//   y_t = act(bias + sum_j weight[j] x_{t - kernel + 1 + j}),  inputs before the start are zero.
// State: the last kernel - 1 inputs, oldest first, declared by the operation itself. Inputs of
// another document count as zero.
#pragma once

#include "core/contract/layer.h"

namespace strata {

struct CausalConv1dOptions {
  bool silu = false;  // y = s sigmoid(s) of the sum s
  // (batch, kernel - 1, channels): inputs before the first token, with a gradient; for training
  // that carries on. Absent: the state of the pass, or zeros.
  Tensor initial = {};
};

struct CausalConv1dArgs {
  Tensor x;        // (batch, seq_len, channels)
  Tensor weight;   // (channels, 1, kernel)
  Tensor bias;     // (channels,) or absent
  Tensor initial;  // (batch, kernel - 1, channels) or absent
  Tensor seq_idx;  // (batch, seq_len) i32 or absent
  StateRef tail;   // (kernel - 1, channels) per sequence, read and replaced
  Tensor taps;     // (kernel, channels) workspace: the weight transposed
  Tensor y;        // (batch, seq_len, channels)
  bool silu;
};

struct CausalConv1dBackwardArgs {
  Tensor x, weight, bias, initial, seq_idx, dy;
  GradTarget dx, dweight, dbias, dinitial;
  Tensor taps;     // (kernel, channels) workspace
  Tensor partial;  // (time blocks of all rows, (kernel + 1) channels): sums of dweight and dbias
  bool silu;
};

// x: (batch, seq_len, channels), may be a slice; weight: (channels, 1, kernel); bias: (channels,)
// or absent -> (batch, seq_len, channels). Throws Error when they do not fit.
STRATA_API Tensor causal_conv1d(Context& cx, Tensor x, Tensor weight, Tensor bias, Pass& pass,
                                const CausalConv1dOptions& options = {});

constexpr int64_t kConvTimeBlock = 128;
// Tokens that one block of the backward sums (for the size of `partial`): a multiple of
// kConvTimeBlock. CUDA kernels of two-byte numbers walk further where there is enough to do, so
// that less is spent on sums and on tokens that two blocks need.
STRATA_INLINE int64_t conv_time_block(const Tensor& x) {
  int64_t block = kConvTimeBlock;
  if (x.device.kind != DeviceKind::cuda || size_of(x.dtype) != 2) return block;
  while (block < 512 && x.shape[0] * (x.shape[1] / block) * (x.cols() / 512) >= 4096) block *= 2;
  return block;
}
constexpr int64_t kConvMaxKernel = 64;

}  // namespace strata
