#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>

namespace strata {

int64_t warmup_steps(const TrainConfig& t) {
  return t.warmup < 1 ? int64_t(std::llround(t.warmup * double(t.steps))) : int64_t(t.warmup);
}

static double cosine(double p) { return 0.5 * (1 + std::cos(3.14159265358979323846 * p)); }

static double decay_factor(const std::string& shape, double q) {
  if (shape == "linear") return 1 - q;
  if (shape == "cosine") return cosine(q);
  if (shape == "exponential") return 2 * std::pow(0.5, q) - 1;
  if (shape == "minus_sqrt") return 1 - std::sqrt(q);
  throw Error("train.decay_shape must be linear, cosine, exponential or minus_sqrt, got '" + shape +
              "'");
}

double learning_rate(const TrainConfig& t, int64_t step) {
  const int64_t warmup = warmup_steps(t);
  if (step <= warmup) return t.lr * double(step) / double(warmup);
  const double p =
      std::min(1.0, double(step - warmup) / double(std::max<int64_t>(1, t.steps - warmup)));
  double factor = 1;
  if (t.schedule == "linear") {
    factor = 1 - p;
  } else if (t.schedule == "cosine") {
    factor = cosine(p);
  } else if (t.schedule == "wsd") {
    const int64_t decay = std::max<int64_t>(1, std::llround(t.decay * double(t.steps)));
    const int64_t into = step - (t.steps - decay);
    if (into > 0) factor = decay_factor(t.decay_shape, std::min(1.0, double(into) / double(decay)));
  } else if (t.schedule != "constant") {
    throw Error("train.schedule must be constant, linear, cosine or wsd, got '" + t.schedule + "'");
  }
  return t.min_lr + (t.lr - t.min_lr) * factor;
}

}  // namespace strata
