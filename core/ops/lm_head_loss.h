// The LM head and its cross entropy in one: never stores (tokens x vocab_size) at once.
//   logits = softcap(scale * h W^T)
//   loss = sum over labelled rows of (logsumexp(logits) - logits[label])
// When recording, the gradients of h and W are computed chunk by chunk in the same walk, scaled by
// `inverse_count`, because the logits are gone afterwards.
#pragma once

#include "core/contract/layer.h"

namespace strata {

constexpr int32_t kNoLabel = -100;

struct LmHeadOptions {
  double logits_scale = 1;
  double softcap = 0;   // logits = softcap * tanh(logits / softcap); 0: off
  double z_loss = 0;    // adds z_loss * logsumexp(logits)^2 per labelled row
  int64_t chunk = 256;  // rows of logits that exist at one time
};

struct LmHeadLoss {
  Tensor loss;   // (1,) f64: sum over the labelled rows
  Tensor count;  // (1,) i64: labelled rows
};

// Softmax cross entropy of rows of logits. The gradient, times inverse_count, replaces the logits.
struct CrossEntropyArgs {
  Tensor logits;         // (rows, vocab_size), overwritten when inverse_count is present
  Tensor labels;         // (rows,) i32, kNoLabel: no loss
  Tensor inverse_count;  // (1,) f64, or absent: no gradient
  Tensor row_loss;       // (rows,) f64
  Tensor loss, count;    // (1,): added to
  Tensor predictions;    // (rows,) i32 or absent: first largest logit of labelled rows, else -1
  double logits_scale, softcap, z_loss;
};

// h: (..., d_model), weight: (vocab_size, d_model), labels: as many i32 as h has rows. Throws Error
// when they do not fit.
STRATA_API LmHeadLoss lm_head_loss(Context& cx, Tensor h, Tensor weight, Tensor labels,
                                   Tensor inverse_count, const LmHeadOptions& options = {},
                                   Tensor predictions = {});

// The same on logits that exist: (..., vocab_size), one label a row. The twin of lm_head_loss.
STRATA_API LmHeadLoss cross_entropy(Context& cx, Tensor logits, Tensor labels, Tensor inverse_count,
                                    const LmHeadOptions& options = {}, Tensor predictions = {});

}  // namespace strata
