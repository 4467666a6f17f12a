#include "core/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace strata {

void check_sampler(const SamplerOptions& o) {
  if (!(o.temperature >= 0))
    throw Error("temperature must be 0 or more, got " + std::to_string(o.temperature));
  if (o.top_k < 0) throw Error("top_k must be 0 (off) or more, got " + std::to_string(o.top_k));
  if (!(o.top_p > 0 && o.top_p <= 1))
    throw Error("top_p must lie in (0, 1], got " + std::to_string(o.top_p));
}

int32_t argmax(std::span<const double> logits) {
  return int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

int32_t sample(std::span<const double> logits, const SamplerOptions& options, Random& random) {
  check_sampler(options);
  if (options.temperature == 0) return argmax(logits);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  if (options.top_k > 0 && size_t(options.top_k) < order.size()) order.resize(options.top_k);
  std::vector<double> weight(order.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    weight[i] = std::exp((logits[order[i]] - logits[order[0]]) / options.temperature);
    total += weight[i];
  }
  size_t kept = 0;
  double mass = 0;
  while (kept < order.size() && mass < options.top_p * total) mass += weight[kept++];
  kept = std::max<size_t>(kept, 1);
  double left = random.uniform() * mass;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weight[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace strata
