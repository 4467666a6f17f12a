// Layers made of plain operations, and a factory that knows them: models in tests need no plugin.
#pragma once

#include <algorithm>
#include <memory>

#include "core/contract/plugin.h"
#include "core/model/layer_factory.h"
#include "core/ops/activation.h"
#include "core/ops/linear.h"

namespace strata::testing {

// y = W2 silu(W1 x)
class TinyMlp final : public Layer {
 public:
  explicit TinyMlp(const Config& c)
      : up_(param("up_proj", {c.size("d_ff", 2 * c.d_model()), c.d_in()})),
        down_(param("down_proj", {c.d_model(), c.size("d_ff", 2 * c.d_model())})) {}
  Tensor forward(Context& cx, Tensor x, Pass&) override {
    return linear(cx, silu(cx, linear(cx, x, up_)), down_);
  }

 private:
  Param up_, down_;
};

// The same with a backward of its own that computes the middle again.
class TinyRecompute final : public Layer {
 public:
  explicit TinyRecompute(const Config& c)
      : up_(param("up_proj", {2 * c.d_model(), c.d_in()})),
        down_(param("down_proj", {c.d_model(), 2 * c.d_model()})) {}
  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    if (pass.mode() == Mode::train) pass.save("x", x);
    return linear(cx, silu(cx, linear(cx, x, up_)), down_);
  }
  Tensor backward(Context& cx, Tensor dy, Pass& pass) override {
    const bool before = cx.set_recording(true);
    const size_t begin = cx.tape_size();
    const Tensor x = cx.track(pass.saved("x"));
    const Tensor y = linear(cx, silu(cx, linear(cx, x, up_)), down_);
    cx.set_recording(before);
    cx.set_grad(y, dy);
    cx.replay(begin);
    return cx.grad(x);
  }

 private:
  Param up_, down_;
};

class TestFactory final : public LayerFactory {
 public:
  std::unique_ptr<Layer> create(const std::string& symbol, const LayerConfig& c) override {
    if (symbol == "-") return std::make_unique<TinyMlp>(c);
    if (symbol == "r") return std::make_unique<TinyRecompute>(c);
    throw Error("unknown symbol '" + symbol + "'");
  }
  std::string name_of(const std::string& symbol) override { return symbol == "-" ? "mlp" : "own"; }
  Options preset(const std::string&) override { return {}; }
  uint32_t own_hooks(const std::string& symbol) override {
    return symbol == "r" ? own_hooks_of<TinyRecompute>() : own_hooks_of<TinyMlp>();
  }

 private:
  template <class L>
  static uint32_t own_hooks_of() {
    return strata::own_hooks<L>();
  }
};

}  // namespace strata::testing
