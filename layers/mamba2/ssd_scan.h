// The state-space-dual scan of Mamba-2 (Dao and Gu, arXiv 2405.21060). Per head, with
//   dt_t = clamp(softplus(dt_raw_t + dt_bias), dt_min, dt_max),  A = exp(A_log),
//   a_t = exp(-A dt_t), or 2 exp(-A dt_t) - 1 with neg_eig (eigenvalues in [-1, 1]),
//   S_t = a_t S_{t-1} + dt_t x_t B_t^T,   y_t = S_t C_t + D x_t.
// Head h reads group h / (n_heads / n_groups) of B and C. Where seq_idx changes, a_t = 0: a
// document starts without state. Long inputs run in chunks of matrix products; one token runs as
// written.
#pragma once

#include "core/contract/layer.h"

namespace strata::mamba2 {

struct SsdScanOptions {
  int64_t n_heads = 1, head_dim = 64, n_groups = 1, d_state = 128;
  int64_t chunk_size = 128;  // tokens per chunk; changes the result by rounding only
  double dt_min = 0, dt_max = 1e30;
  bool neg_eig = false;
};

struct SsdScanArgs {
  Tensor x;                  // (batch, seq_len, n_heads * head_dim)
  Tensor dt;                 // (batch, seq_len, n_heads), before bias and softplus
  Tensor b, c;               // (batch, seq_len, n_groups * d_state)
  Tensor a_log, d, dt_bias;  // (n_heads,), in the accumulation type
  Tensor seq_idx;            // (batch, seq_len) i32, or absent
  Tensor y;                  // as x
  StateRef state;            // carried per sequence (n_heads, head_dim, d_state), or absent
  Tensor initial_state;      // (batch, n_heads, head_dim, d_state), or absent: zero
  Tensor final_state;        // (batch, n_heads, head_dim, d_state), or absent: not kept
  SsdScanOptions options;
  Tensor workspace;  // ssd_workspace_bytes
  int threads = 1;
};

// `forward` without state; its y is not read.
struct SsdScanBackwardArgs {
  SsdScanArgs forward;
  Tensor dy, dfinal_state;  // dfinal_state may be absent
  GradTarget dx, ddt, db, dc, da_log, dd, ddt_bias, dinitial_state;
};

// Workspace of one call in bytes: linear in batch * seq_len for the backward (the states at chunk
// starts), independent of seq_len for the forward. Shapes, dtype and options of `args` are read.
int64_t ssd_workspace_bytes(const SsdScanArgs& args, bool backward);

// x: (batch, seq_len, n_heads * head_dim), dt: (batch, seq_len, n_heads), b, c: (batch, seq_len,
// n_groups * d_state), all possibly slices of wider rows; a_log, d, dt_bias: (n_heads,) -> y as x.
// In prefill and decode the state "ssm" goes from token to token; in training it starts at zero and
// restarts where the pass's seq_idx changes. Throws Error when shapes disagree.
Tensor ssd_scan(Context& cx, Tensor x, Tensor dt, Tensor b, Tensor c, Tensor a_log, Tensor d,
                Tensor dt_bias, const SsdScanOptions& options, Pass& pass);

// The same on arguments as tensors, with gradients of both states; y, workspace and threads are
// filled here. Throws Error when shapes disagree.
Tensor ssd_scan(Context& cx, SsdScanArgs args);

}  // namespace strata::mamba2
