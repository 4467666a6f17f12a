// What sequences keep, compared with stored caches.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/model/model.h"
#include "experiments/evaluate/golden_file.h"

namespace strata::golden {

// The largest difference between the state `what` (conv, state, k, v) of the blocks [first, last)
// and stored values of shape (batch, ...). Throws Error if no such block keeps it.
double cache_difference(const Model& model, Cache& cache, const std::vector<int>& sequences,
                        std::pair<size_t, size_t> blocks, const std::string& what,
                        const Values& expected);

}  // namespace strata::golden
