// AdamW (Loshchilov and Hutter, arXiv 1711.05101), as PyTorch computes it:
//   g = clip * g;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   w = w - lr * decay * w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// and the clipping by global norm: clip = min(1, max_norm / (norm + 1e-6)).
// Parameters of two bytes are rounded copies: the step is taken on their float32 masters.
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
  // Masters start at the present values of the parameters.
  AdamW(ParamStore& params, AdamWConfig config);

  static constexpr int kStates = 2;  // copies of the trainable parameters, without masters
  // Bytes beside the states: the table of the pieces and the scalars.
  static size_t table_bytes(const ParamStore& params);

  // Starts the masters at the present values again: after parameters were loaded.
  void take_values();

  // The global L2 norm over all gradients, before clipping; not finite when a gradient is not.
  double grad_norm(Context& cx);
  // One step with gradients scaled by `clip`.
  void step(Context& cx, double lr, double clip);

  // The same in parts that let the device run ahead. begin: what the host knows of the step.
  // update: norm, clipping and the step itself, only launches; nothing changes where `loss` (1,)
  // f64 (absent: 0) or the norm is not finite. finish: waits, and counts the step if it was made.
  struct Outcome {
    double norm = 0;  // before clipping
    bool applied = false;
  };
  void begin(double lr, double max_norm);
  void update(Context& cx, Tensor loss);
  Outcome finish();

  struct State {
    std::string name;
    Tensor m, v, master;  // master: absent where the parameter itself is exact
  };
  const std::vector<State>& states() const { return states_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  void write_scalars(const StepScalars& scalars);
  StepScalars read_scalars() const;
  void launch_norm(Context& cx);
  void launch_step(Context& cx);

  ParamStore& params_;
  AdamWConfig config_;
  int64_t steps_ = 0, n_pieces_ = 0;
  DType dtype_ = DType::f32;  // of gradients and states
  Device device_;
  Block memory_, pieces_, scalars_;
  std::vector<State> states_;
};

// The factor for gradients of this norm; max_norm 0 turns clipping off.
STRATA_API double clip_factor(double norm, double max_norm);

}  // namespace strata
