// What golden.json says about a model folder: tolerances, the prompt's length, the training run.
#pragma once

#include <cstdint>
#include <string>

namespace strata::golden {

// What a float32 run may differ: logits and training losses absolutely, gradients relative to the
// largest value of each tensor.
struct Tolerances {
  double logits = 1e-4, grad = 1e-4, train = 1e-4;
};

// How far the reference's own bf16 run is from its float64 run, in logits; 0: the file does not
// say.
struct HalfDeviation {
  double largest = 0, mean = 0;
};

// AdamW on the one batch, every tensor decayed, nothing clipped.
struct TrainSettings {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
};

struct Settings {
  Tolerances tolerances;
  HalfDeviation half;
  TrainSettings train;
  int64_t prefill = 0;  // tokens of the prompt; 0: the file does not say
};

// Keys that the folder's golden.json does not have keep the values above, as does a folder without
// it. Throws Error for values that cannot be.
Settings read_settings(const std::string& folder);

}  // namespace strata::golden
