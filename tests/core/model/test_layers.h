// Layers made of plain operations, and a factory that knows them: models in tests need no plugin.
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

#include "core/contract/plugin.h"
#include "core/model/layer_factory.h"
#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "core/ops/attend.h"
#include "core/ops/linear.h"
#include "core/ops/matmul.h"

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

// Publishes the middle of y = W2 W1 x for later blocks, adds |W1 x|^2 to the loss and counts the
// rows. Throws what is no Error for a row of 13 tokens.
class TinyPublish final : public Layer {
 public:
  explicit TinyPublish(const Config& c)
      : w1_(param("w1", {c.d_model(), c.d_in()})), w2_(param("w2", {c.d_model(), c.d_model()})) {
    own_input_ = c.get("own_input", false);
    if (c.get("angry", false)) throw std::runtime_error("the constructor throws");
  }
  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    if (x.shape[1] == 13) throw std::out_of_range("deque");
    const Tensor h = linear(cx, x, w1_);  // (batch, seq_len, d_model)
    pass.publish("middle", own_input_ ? x : h);
    const int64_t n = h.numel();
    const Tensor square = matmul(cx, cx.reshape(h, {1, n}), cx.reshape(h, {n, 1}));
    if (pass.mode() == Mode::train) cx.add_loss("square", cx.reshape(square, {1}), 0.5);
    const Tensor rows = cx.alloc({2}, DType::i32);
    if (!cx.planning()) rows.ptr<int32_t>()[0] = rows.ptr<int32_t>()[1] = int32_t(h.rows());
    cx.add_count("rows", rows);
    return linear(cx, h, w2_);
  }
  void after_step(Context&, const StepCounts& step) override {
    const auto rows = step.counts.find("rows");
    counted.push_back(rows == step.counts.end() ? -1 : rows->second.at(1));
  }
  std::vector<double> counted;

 private:
  bool own_input_ = false;
  Param w1_, w2_;
};

// y = W (x * middle), with the middle of the last TinyPublish before it.
class TinyFetch final : public Layer {
 public:
  explicit TinyFetch(const Config& c) : w_(param("w", {c.d_model(), c.d_in()})) {}
  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    return linear(cx, mul(cx, x, pass.fetch("middle")), w_);
  }

 private:
  Param w_;
};

// Attention without projections: 'K' publishes its keys, values and pages; 'S' uses them again.
class TinyAttend final : public Layer {
 public:
  TinyAttend(const Config& c, bool shares)
      : shares_(shares), width_(c.d_model()), q_(param("q", {width_, c.d_in()})) {
    if (!shares) k_ = param("k", {width_, c.d_in()});
    if (!shares) v_ = param("v", {width_, c.d_in()});
  }
  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    if (shares_) pass.same_as("k", "shared.k");
    if (shares_) pass.same_as("v", "shared.v");
    const Tensor k = shares_ ? pass.fetch("k") : linear(cx, x, k_);
    const Tensor v = shares_ ? pass.fetch("v") : linear(cx, x, v_);
    if (!shares_) pass.publish("k", k);
    if (!shares_) pass.publish("v", v);
    const AttendOptions o{.n_heads = 1, .n_kv_heads = 1, .head_dim = width_};
    const Tensor y = attend(cx, linear(cx, x, q_), k, v, o, pass);
    if (!shares_ && pass.mode() != Mode::train) pass.publish_pages("shared.k", "k");
    if (!shares_ && pass.mode() != Mode::train) pass.publish_pages("shared.v", "v");
    return y;
  }

 private:
  bool shares_;
  int64_t width_;
  Param q_, k_, v_;
};

class TestFactory final : public LayerFactory {
 public:
  std::unique_ptr<Layer> create(const std::string& symbol, const LayerConfig& c) override {
    if (symbol == "-") return std::make_unique<TinyMlp>(c);
    if (symbol == "r") return std::make_unique<TinyRecompute>(c);
    if (symbol == "p") return std::make_unique<TinyPublish>(c);
    if (symbol == "f") return std::make_unique<TinyFetch>(c);
    if (symbol == "K" || symbol == "S") return std::make_unique<TinyAttend>(c, symbol == "S");
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
