// Draws without replacement, shared by the generators.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/random.h"

namespace strata {

// `n` distinct numbers of [low, high), in random order (Floyd's method, then a shuffle).
// Needs n <= high - low.
std::vector<int32_t> draw_distinct(Random& random, int64_t low, int64_t high, int64_t n);

// `n` distinct indices of `weights`; each next one is drawn with probability proportional to its
// weight among those left (the order of the draws is kept). Needs n <= weights.size(), weights > 0.
std::vector<int32_t> draw_weighted(Random& random, const std::vector<double>& weights, int64_t n);

}  // namespace strata
