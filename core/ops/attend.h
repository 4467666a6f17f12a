// Softmax attention, y = softmax(mask(scale * q k^T)) v, tiled with an online softmax
// (FlashAttention, arXiv 2205.14135 and 2307.08691): memory is linear in the sequence length.
// Query head h uses key-value head h / (n_heads / n_kv_heads).
//
// A query at position p sees key j if all of these hold:
//   causal    j <= p
//   window W  p - j < W, and j - p < W when not causal
//   documents j and p lie in the same run of equal seq_idx
#pragma once

#include "core/contract/layer.h"

namespace strata {

struct AttendOptions {
  int64_t n_heads = 1, n_kv_heads = 1, head_dim = 0;
  double scale = 0;    // of q k^T; 0: 1 / sqrt(head_dim)
  double softcap = 0;  // score -> softcap * tanh(score / softcap); 0: none
  bool causal = true;
  int64_t window = 0;  // 0: none
};

// Without pages the queries are the last q_len of kv_len positions, p = kv_len - q_len + t. With
// pages p = lengths[b] + t, and the keys and values of all tokens up to lengths[b] + q_len are
// there.
struct AttendArgs {
  Tensor q;        // (batch, q_len, n_heads * head_dim)
  Tensor k, v;     // (batch, kv_len, n_kv_heads * head_dim); absent with pages
  Tensor y;        // (batch, q_len, n_heads * head_dim)
  Tensor lse;      // (batch, q_len, n_heads), log-sum-exp of the scores; may be absent in forward
  Tensor seq_idx;  // (batch, kv_len) i32, or absent; not with pages
  PagesRef k_pages, v_pages;
  AttendOptions options;
  Tensor workspace;  // attend_workspace_bytes
  int threads = 1;
};

struct AttendBackwardArgs {
  AttendArgs forward;
  Tensor dy;
  GradTarget dq, dk, dv;
};

// rows (batch, seq_len, width) become tokens lengths[b] + t of their sequences.
struct AppendPagesArgs {
  Tensor rows;
  PagesRef pages;
};

// q: (batch, seq_len, n_heads * head_dim); k, v: (batch, seq_len, n_kv_heads * head_dim), which may
// be slices of wider rows -> y as q. In prefill and decode it keeps k and v in pages (state "k",
// "v") and attends over them; in training it honours the pass's seq_idx. Throws Error when widths
// disagree, n_kv_heads does not divide n_heads, or paged attention is asked to be non-causal.
STRATA_API Tensor attend(Context& cx, Tensor q, Tensor k, Tensor v, const AttendOptions& options,
                         Pass& pass);

// Attention without state: kv_len may exceed q_len. seq_idx: (batch, kv_len) i32 or absent.
STRATA_API Tensor attend(Context& cx, Tensor q, Tensor k, Tensor v, const AttendOptions& options,
                         Tensor seq_idx);

// Workspace of one call of the forward (pages: against pages) or of the backward, in bytes: linear
// in batch * kv_len. Sizes, dtype and seq_idx of `args` are read, no pointers.
STRATA_API int64_t attend_workspace_bytes(const AttendArgs& args, bool backward);

}  // namespace strata
