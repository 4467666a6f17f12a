// What the rows of single operations stand on: a context with its arenas, random tensors,
// parameters, and the pass of one block.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/tensor/memory.h"
#include "tests/bench/device/clock.h"

namespace strata::bench {

class Rig {
 public:
  // A planning `memory` counts what a row needs; nothing is filled then.
  Rig(Clock& clock, Memory& memory, DType dtype);

  // Uniform numbers, of the context's dtype unless said otherwise; they live as long as the rig.
  Tensor random(const Shape& shape, double low = -1, double high = 1);
  Tensor random(const Shape& shape, DType dtype, double low, double high);
  Tensor numbers(const std::vector<int32_t>& values);  // (n,) i32
  // A parameter, in float32 for Keep::accum. `trained`: with a float32 gradient.
  Param param(const Shape& shape, double low, double high, Keep keep = Keep::compute,
              bool trained = true);
  int64_t element() const { return int64_t(size_of(cx.dtype())); }

  // The body of a forward: nothing of `op` is kept.
  Runs forward(std::function<void()> op);
  // The body of the backward of `op`, which is recorded anew by each prepare: the tape alone. `op`
  // calls variable() for its inputs and returns what gets a random gradient.
  Runs backward(std::function<Tensor()> op);
  // x as an input whose gradient is wanted.
  Tensor variable(Tensor x) { return cx.track(x); }

  Clock& clock() { return clock_; }

  Context cx;

 private:
  Clock& clock_;
  uint64_t seed_ = 1;
  std::deque<ParamSlot> params_;
};

// The pass of one block: training, or one more token for `batch` sequences that hold `held` tokens.
class RigPass final : public Pass {
 public:
  RigPass() = default;
  RigPass(Clock& clock, Device device, int64_t batch, int64_t held);

  Mode mode() const override { return batch_ ? Mode::decode : Mode::train; }
  Tensor positions() const override { return {}; }
  Tensor seq_idx() const override { return {}; }
  StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) override;
  PagesRef pages(std::string_view name, const Shape& per_token, DType dtype,
                 Growth growth) override;
  std::string unique(std::string_view base) override { return std::string(base); }
  void publish(std::string_view, Tensor) override {}
  Tensor fetch(std::string_view) override { return {}; }
  void save(std::string_view, Tensor) override {}
  Tensor saved(std::string_view) const override { return {}; }
  Random random() const override { return Random(1, 2); }

 private:
  void* store(std::string_view name, const Shape& shape, DType dtype);

  Clock* clock_ = nullptr;
  Device device_;
  int64_t batch_ = 0, pages_per_row_ = 0;
  Block slots_, table_, lengths_;                   // i32
  std::map<std::string, Block, std::less<>> kept_;  // made at first use, random
};

}  // namespace strata::bench
