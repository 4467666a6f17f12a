// A test bed: one layer with its parameters in one dtype, run the way a stack runs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model/layer_factory.h"
#include "core/model/params.h"
#include "plugins/kit/kit_pass.h"

namespace strata::kit {

using Values = std::vector<double>;

// A batch of inputs: x is (batch, seq_len, d_model); seq_idx is (batch, seq_len) or empty.
struct Batch {
  int64_t batch = 1, seq_len = 1;
  Values x;
  std::vector<int32_t> seq_idx;
};

struct LayerChoice {
  LayerFactory* factory = nullptr;
  std::string symbol;  // or name
  int64_t d_model = 0;
  Options options;  // presets included
  Device device;
};

struct Gradients {
  Values y, dx;
  std::vector<Values> params;  // in the order of Layer::params(); empty for buffers
};

// One forward in flight: its memory, tape and pass.
struct Site {
  Site(Device device, DType dtype, Mode mode, KitState* state, bool planning);
  // Where the kernels read integers of the host.
  Tensor on_device(std::vector<int32_t>& values, const Shape& shape);
  std::unique_ptr<Memory> memory;
  Context cx;
  KitPass pass;
  Tensor x, y;
  std::vector<int32_t> positions, seq_idx;
  std::vector<unsigned char> before;  // x as it was
};

class Bed {
 public:
  // Builds the layer and draws its parameters; equal choices and seeds give equal values, rounded
  // to float32, in every dtype. Throws what the layer's constructor throws.
  Bed(const LayerChoice& choice, DType dtype, uint64_t seed = 1);

  Layer& layer() { return *layer_; }
  bool own_backward() const { return own_backward_; }
  int64_t d_model() const { return choice_.d_model; }
  const std::string& place() const { return place_; }

  // A batch of normal numbers; a pure function of its arguments.
  Batch random_batch(int64_t batch, int64_t seq_len, uint64_t seed = 5) const;
  Values random_values(int64_t n, uint64_t seed) const;

  // Runs forward. `recording`: with a tape, or, for a backward hook of the layer's own, without.
  std::unique_ptr<Site> forward(const Batch& in, bool train, bool constant_input = false);
  // Runs backward from dy and adds the parameter gradients. Returns dx (zeros when there is none).
  // `replay`: the default hook, whatever the layer overrides; the site must have been recorded.
  Values backward(Site& site, const Values& dy, bool replay = false);
  // Forward in training mode without a tape; with the weighted auxiliary losses when asked for.
  Values infer(const Batch& in, double* auxiliary = nullptr);
  // Both, from gradients of zero.
  Gradients train(const Batch& in, const Values& dy, bool replay = false);
  // One pass over tokens that follow what `state` holds.
  Values step(KitState& state, Mode mode, const Batch& in);
  // Peaks of the arenas of forward and backward, planned (kernels not run) or real.
  std::vector<size_t> peaks(const Batch& in, bool planning);

  void zero_grads() { store_.zero_grads(); }
  std::vector<Values> grads() const;
  // Auxiliary losses count by this much in train(); 0 by default.
  void set_aux_scale(double scale) { aux_scale_ = scale; }

 private:
  std::unique_ptr<Site> enter(const Batch& in, Mode mode, KitState* state, bool recording,
                              bool planning, bool constant_input);

  LayerChoice choice_;
  DType dtype_;
  std::string place_;
  std::unique_ptr<Layer> layer_;
  ParamStore store_;
  bool own_backward_ = false, force_recording_ = false;
  double aux_scale_ = 0;
};

// Numbers of a float32 or float64 tensor, row by row, and back.
Values values_of(Tensor t);
void assign(Tensor t, const Values& values);

// max |a - b| / max(|b|, floor); infinite for different sizes or a not-a-number.
double difference(const Values& a, const Values& b, double floor = 1e-6);

// The tokens [begin, end) of every row.
Batch slice(const Batch& in, int64_t begin, int64_t end);
// Row b alone.
Batch row_of(const Batch& in, int64_t b);

}  // namespace strata::kit
