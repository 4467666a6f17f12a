#include "experiments/tasks/draw.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <unordered_set>
#include <utility>

namespace strata {

std::vector<int32_t> draw_distinct(Random& random, int64_t low, int64_t high, int64_t n) {
  assert(n <= high - low);
  std::vector<int32_t> drawn;
  drawn.reserve(size_t(n));
  std::unordered_set<int32_t> seen;
  for (int64_t last = high - n; last < high; ++last) {
    const auto candidate = int32_t(low + int64_t(random.below(uint64_t(last - low + 1))));
    const int32_t taken = seen.insert(candidate).second ? candidate : int32_t(last);
    seen.insert(taken);
    drawn.push_back(taken);
  }
  for (size_t i = drawn.size(); i > 1; --i) std::swap(drawn[i - 1], drawn[random.below(i)]);
  return drawn;
}

// Exponential clocks: the item with rate w that rings k-th is the k-th draw of the sequential
// scheme (Efraimidis and Spirakis, 2006).
std::vector<int32_t> draw_weighted(Random& random, const std::vector<double>& weights, int64_t n) {
  assert(size_t(n) <= weights.size());
  std::vector<double> rings(weights.size());
  for (size_t i = 0; i < weights.size(); ++i)
    rings[i] = -std::log(1.0 - random.uniform()) / weights[i];
  std::vector<int32_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](int32_t a, int32_t b) {
    return std::pair(rings[size_t(a)], a) < std::pair(rings[size_t(b)], b);
  });
  order.resize(size_t(n));
  return order;
}

}  // namespace strata
