// AdamW (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch computes it:
//   g = clip * g;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w = w - lr * decay * w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// and the clipping by global norm: clip = min(1, max_norm / (norm + 1e-6)).
#pragma once

#include "core/model/params.h"
#include "core/ops/adamw.h"

namespace strata {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  bool decay_all = false;  // also one-dimensional tensors
};

class STRATA_API AdamW {
 public:
  static constexpr int kStates = 2;  // copies of the trainable parameters

  AdamW(ParamStore& params, AdamWConfig config);

  // The global L2 norm over all gradients, before clipping; not finite when a gradient is not.
  double grad_norm(Context& cx);
  // One step with gradients scaled by `clip`.
  void step(Context& cx, double lr, double clip);

  struct Moments {
    std::string name;
    Tensor m, v;
  };
  const std::vector<Moments>& moments() const { return moments_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  ParamStore& params_;
  AdamWConfig config_;
  int64_t steps_ = 0;
  Block memory_, norm_;
  std::vector<Moments> moments_;
};

// The factor for gradients of this norm; max_norm 0 turns clipping off.
STRATA_API double clip_factor(double norm, double max_norm);

}  // namespace strata
