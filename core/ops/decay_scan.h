// Linear recurrences with decay, the core of gated and state-space mixers.
//   decay_scan         h_t = a_t h_{t-1} + b_t, all h_t returned; a per element or per row of b
//   decay_scan_outer   S_t = a_t S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t
// (linear attention, arXiv 2006.16236; with decay, arXiv 2405.21060.)
// Both start from zero in training and from the state of the pass otherwise, and drop the state at
// the first token of a document. Any a is allowed, also zero and negative; beside two-byte inputs
// it may also be float32, as states and sums always are.
#pragma once

#include "core/contract/layer.h"

namespace strata {

struct DecayScanArgs {
  Tensor a;        // as b, or (batch, seq_len, n) with one number per row of b
  Tensor b, h;     // (batch, seq_len, ..., width): n rows of `width` per token
  Tensor seq_idx;  // (batch, seq_len) i32 or absent
  StateRef state;  // (..., width) per sequence
  bool wide;       // a is as b
};

struct DecayScanBackwardArgs {
  Tensor a, h, dh, seq_idx;
  GradTarget da, db;
  bool wide;
};

struct DecayScanOuterArgs {
  Tensor a;           // (batch, seq_len, heads)
  Tensor k, v, q, y;  // (batch, seq_len, heads, d_k | d_v | d_k | d_v)
  Tensor seq_idx;     // (batch, seq_len) i32 or absent
  StateRef state;     // (heads, d_k, d_v) per sequence
  Tensor starts;      // (batch, chunks, heads, d_k d_v): states before each chunk, or absent
  Tensor work;        // (lanes, ...) workspace
};

struct DecayScanOuterBackwardArgs {
  Tensor a, k, v, q, dy, seq_idx, starts;
  GradTarget da, dk, dv, dq;
  Tensor work;
};

constexpr int64_t kScanChunk = 64;  // tokens whose pairs are taken at once
constexpr int64_t kScanLanes = 16;  // workspaces; (sequence, head) pairs share them in turn

// b: (batch, seq_len, ..., width); a: the shape of b, or without its last axis (or that axis 1):
// one decay for the row -> h with the shape of b. State: "scan".
STRATA_API Tensor decay_scan(Context& cx, Tensor a, Tensor b, Pass& pass);

// a: (batch, seq_len, heads); k, q: (batch, seq_len, heads, d_k); v: (batch, seq_len, heads, d_v)
// -> y: as v. Computed in chunks by matrix products. State: "scan", (heads, d_k, d_v).
STRATA_API Tensor decay_scan_outer(Context& cx, Tensor a, Tensor k, Tensor v, Tensor q, Pass& pass);

}  // namespace strata
