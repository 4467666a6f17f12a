// Draws the next token from logits: temperature, then the top_k largest, then the smallest set
// whose probability reaches top_p (nucleus sampling, Holtzman et al., arXiv 1904.09751).
#pragma once

#include <cstdint>
#include <span>

#include "core/model/config.h"
#include "core/tensor/random.h"

namespace strata {

struct SamplerOptions {
  double temperature = 1;  // 0: the largest logit
  int64_t top_k = 0;       // 0: off
  double top_p = 1;        // 1: off
};

// Throws Error for a negative temperature or top_k, or a top_p outside (0, 1].
STRATA_API void check_sampler(const SamplerOptions& options);

// The first largest entry.
STRATA_API int32_t argmax(std::span<const double> logits);

// One token. Ties are settled by the smaller id, so equal draws give equal tokens everywhere.
STRATA_API int32_t sample(std::span<const double> logits, const SamplerOptions& options,
                          Random& random);

}  // namespace strata
