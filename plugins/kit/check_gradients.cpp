// Gradients against central differences of the loss <dy, y> + auxiliary losses, in float64.
#include <algorithm>
#include <cmath>
#include <functional>

#include "plugins/kit/checks.h"

namespace strata::kit {
namespace {

constexpr double kTolerance = 1e-6;
constexpr double kFloor = 1e-3;  // gradients below it are compared absolutely
// Several steps: a small one for layers with kinks, a large one for flat losses.
constexpr double kSteps[] = {1e-5, 1e-6, 1e-7, 1e-4};

double norm(const Values& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

// The error of `gradient` as the derivative at `at`, by one random direction and single elements.
// `loss` is the loss with other values in this place.
double worst_error(const Values& at, const Values& gradient, uint64_t seed, bool singles,
                   const std::function<double(const Values&)>& loss) {
  auto along = [&](const Values& direction, double scale) {
    double slope = 0, best = INFINITY;
    for (size_t i = 0; i < at.size(); ++i) slope += gradient[i] * direction[i];
    for (const double h : kSteps) {
      Values up = at, down = at;
      for (size_t i = 0; i < at.size(); ++i) {
        up[i] += h * direction[i];
        down[i] -= h * direction[i];
      }
      const double error = std::abs((loss(up) - loss(down)) / (2 * h) - slope) / scale;
      if (std::isfinite(error)) best = std::min(best, error);
      if (best <= 0.1 * kTolerance) break;
    }
    return best;
  };
  Random random(seed, stream_of("directions"));
  Values direction(at.size());
  for (double& x : direction) x = random.normal();
  double worst = along(direction, std::max(norm(gradient), kFloor));
  if (!singles) return worst;
  auto size = [](double a, double b) { return std::abs(a) < std::abs(b); };
  const auto largest = std::max_element(gradient.begin(), gradient.end(), size);
  const double scale = std::max(std::abs(*largest), kFloor);
  for (const size_t i : {size_t(largest - gradient.begin()), size_t{0}, at.size() - 1,
                         size_t(random.below(at.size()))}) {
    std::fill(direction.begin(), direction.end(), 0.0);
    direction[i] = 1;
    worst = std::max(worst, along(direction, scale));
  }
  return worst;
}

}  // namespace

Rows check_gradients(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  bed.set_aux_scale(1);
  std::vector<double> worst(bed.layer().params().size() + 1, 0.0);
  std::vector<double> norms(worst.size(), 0.0);
  for (const auto& [batch, seq_len, singles] :
       {std::tuple<int64_t, int64_t, bool>{2, 9, true}, {1, 70, false}}) {
    const Batch in = bed.random_batch(batch, seq_len);
    const Values dy = bed.random_values(int64_t(in.x.size()), 6);
    auto loss = [&](const Batch& at) {
      double total;
      const Values y = bed.infer(at, &total);
      for (size_t i = 0; i < y.size(); ++i) total += dy[i] * y[i];
      return total;
    };
    const Gradients g = bed.train(in, dy);
    norms[0] += norm(g.dx);
    worst[0] = std::max(worst[0], worst_error(in.x, g.dx, 1, singles, [&](const Values& x) {
                          Batch other = in;
                          other.x = x;
                          return loss(other);
                        }));
    size_t i = 0;
    for (ParamSlot& p : bed.layer().params()) {
      if (const size_t k = i++; !p.is_buffer) {
        const Values at = values_of(p.value);
        norms[k + 1] += norm(g.params[k]);
        worst[k + 1] = std::max(worst[k + 1],
                                worst_error(at, g.params[k], 2 + k, singles, [&](const Values& v) {
                                  assign(p.value, v);
                                  return loss(in);
                                }));
        assign(p.value, at);
      }
    }
  }
  Rows rows = {measured("gradient x", worst[0], kTolerance, norms[0] == 0 ? "zero" : "")};
  size_t i = 0;
  for (const ParamSlot& p : bed.layer().params())
    if (const size_t k = ++i; !p.is_buffer)
      rows.push_back(measured("gradient " + p.name, worst[k], kTolerance,
                              norms[k] == 0 ? "zero: nothing trains it" : ""));
  return rows;
}

}  // namespace strata::kit
