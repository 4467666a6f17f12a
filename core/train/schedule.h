// Learning rate at optimizer step k = 1, 2, ..., n.
//   warm-up    lr k / w for k <= w: the first step moves, as in llm.c (HF and Megatron start at 0)
// Then, with p in (0, 1] the share of the steps after the warm-up that are done:
//   constant   lr
//   linear     min_lr + (lr - min_lr) (1 - p)
//   cosine     min_lr + (lr - min_lr) (1 + cos(pi p)) / 2   (Loshchilov and Hutter, 1608.03983)
//   wsd        lr until the last `decay` share of all steps; there, with q in (0, 1] of it done,
//              min_lr + (lr - min_lr) f, where f is by decay_shape (Megatron-LM):
//              linear 1 - q, cosine (1 + cos(pi q)) / 2, exponential 2 * 0.5^q - 1,
//              minus_sqrt 1 - sqrt(q)
#pragma once

#include <cstdint>

#include "core/model/config.h"

namespace strata {

// Throws Error for an unknown schedule or decay shape.
STRATA_API double learning_rate(const TrainConfig& train, int64_t step);

// Steps of warm-up: a share of all steps below 1, else a number of steps.
STRATA_API int64_t warmup_steps(const TrainConfig& train);

}  // namespace strata
