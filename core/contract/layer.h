// Layer: the mixer of one residual block, (batch, seq_len, d_model) -> (batch, seq_len, d_model).
// The norm, the residual add and the wiring belong to the host.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/contract/context.h"
#include "core/contract/options.h"
#include "core/tensor/random.h"

namespace strata {

// ------------------------------------------------------------------------------------ parameters
// How a parameter starts. `each` draws one element; draws depend on (seed, parameter name, index).
struct Init {
  enum class Kind { linear, zeros, ones, constant, normal, each };
  Kind kind = Kind::linear;  // U(-1/sqrt(fan_in), 1/sqrt(fan_in)), fan_in = last axis
  double value = 0;          // the constant, or the standard deviation
  std::function<double(Random&)> draw;

  static Init linear() { return {}; }
  static Init zeros() { return {Kind::zeros, 0, {}}; }
  static Init ones() { return {Kind::ones, 0, {}}; }
  static Init constant(double v) { return {Kind::constant, v, {}}; }
  static Init normal(double sd) { return {Kind::normal, sd, {}}; }
  static Init each(std::function<double(Random&)> f) { return {Kind::each, 0, std::move(f)}; }
};

enum class Decay { automatic, yes, no };  // automatic: weight decay on tensors of rank >= 2
enum class Keep { compute, accum };       // accum: float32 in every mode (A_log, D, norms, ...)

struct ParamOptions {
  Init init{};
  Keep keep = Keep::compute;
  Decay decay = Decay::automatic;
  double init_scale = 1;  // multiplies the drawn values (out_proj: 1/sqrt(n_blocks))
  double lr_scale = 1;
  std::string role{};  // per axis: "out,in", "heads", "experts,out,in", ... for sharding
};

// A parameter or buffer of a layer, with what the host bound to it.
struct ParamSlot {
  std::string name;
  Shape shape;
  ParamOptions options;
  bool is_buffer = false;  // saved, never differentiated
  Tensor value;            // bound by the host before the first forward
  Tensor grad;             // absent when frozen or not training; gradients are added to it
};

// A handle: what a layer keeps and passes to operations. Converts to the bound tensor.
class Param {
 public:
  Param() = default;
  explicit Param(const ParamSlot* slot) : slot_(slot) {}
  explicit operator bool() const { return slot_ != nullptr; }
  operator Tensor() const { return slot_ ? slot_->value : Tensor{}; }
  const ParamSlot* slot() const { return slot_; }

 private:
  const ParamSlot* slot_ = nullptr;
};

// ----------------------------------------------------------------------------------------- state
struct Growth {
  enum class Kind { fixed, per_token, window };
  Kind kind = Kind::fixed;
  int64_t window = 0, sinks = 0;

  static Growth fixed() { return {}; }
  static Growth per_token() { return {Kind::per_token, 0, 0}; }
  static Growth window_of(int64_t w, int64_t sinks = 0) { return {Kind::window, w, sinks}; }
  bool operator==(const Growth&) const = default;
};

// What one sequence carries from token to token: `shape` per sequence (fixed) or per token.
struct StateSpec {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  Growth growth;
  std::string same_as{};  // a published per-token entry of an earlier block: owns no pages
};

// -------------------------------------------------------------------------------------- quantize
enum class Sensitivity { low, normal, high };

// A layer's answer for one parameter.
struct QuantChoice {
  bool quantize = false;
  Sensitivity sensitivity = Sensitivity::normal;
};

// ------------------------------------------------------------------------------------------ pass
enum class Mode { train, prefill, decode };

// Everything that is not the input: where in the sequences we are, and what this block keeps.
class STRATA_API Pass {
 public:
  virtual ~Pass();
  virtual Mode mode() const = 0;
  // (batch, seq_len) i32: the position of each token in its sequence (restarts with a document).
  virtual Tensor positions() const = 0;
  // (batch, seq_len) i32: the document of each token; absent when every row is one document.
  virtual Tensor seq_idx() const = 0;

  // A fixed state entry of this block; absent in training. The first call, in planning, declares
  // it.
  virtual StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) = 0;
  // A per-token entry of this block; absent in training.
  virtual PagesRef pages(std::string_view name, const Shape& per_token, DType dtype,
                         Growth growth) = 0;
  // Names op states uniquely by order of call: "conv", "conv.1", ...
  virtual std::string unique(std::string_view base) = 0;

  // Tensors for later blocks of the stack, and from earlier ones ("embed" is always there).
  virtual void publish(std::string_view name, Tensor value) = 0;
  virtual Tensor fetch(std::string_view name) = 0;

  // Per-token entries that blocks share (cross-layer keys and values). publish_pages: later blocks
  // may use this block's `entry`. same_as: this block's `entry`, asked for afterwards by pages(),
  // is the published one and owns no pages; both must have one shape, dtype and growth.
  virtual void publish_pages(std::string_view published, std::string_view entry);
  virtual void same_as(std::string_view entry, std::string_view published);

  // For layers with a backward of their own: what forward leaves for it.
  virtual void save(std::string_view name, Tensor value) = 0;
  virtual Tensor saved(std::string_view name) const = 0;

  // The seed and counter of this step and block, for dropout and the like.
  virtual Random random() const = 0;

  // Set by the executor for Layer::backward: the tape before forward, its input and its output.
  size_t tape_begin = 0;
  Tensor input, output;
};

// What an optimizer step counted over all microbatches and ranks, by name.
struct StepCounts {
  std::map<std::string, std::vector<double>> counts;
};

// ----------------------------------------------------------------------------------------- layer
// The options of a block as the constructor reads them; what was read is what is allowed.
class STRATA_API LayerConfig {
 public:
  struct Read {
    std::string key;
    OptionValue fallback, value;
    std::string help;
  };

  // d_in: the width of the block's input, d_model when 0.
  LayerConfig(int64_t d_model, int64_t n_blocks, Options given, std::string place,
              int64_t d_in = 0);
  int64_t d_model() const { return d_model_; }  // of the output
  int64_t d_in() const { return d_in_; }        // of the input: d_model unless wiring widens it
  int64_t n_blocks() const { return n_blocks_; }

  // Each: the given value or the fallback. Throws Error on a wrong type. `help` is one line with
  // the unit, shown by `strata help layer NAME`.
  int64_t get(std::string_view key, int64_t fallback, std::string_view help = {}) const;
  int64_t get(std::string_view key, int fallback, std::string_view help = {}) const {
    return get(key, int64_t{fallback}, help);
  }
  double get(std::string_view key, double fallback, std::string_view help = {}) const;
  bool get(std::string_view key, bool fallback, std::string_view help = {}) const;
  std::string get(std::string_view key, const char* fallback, std::string_view help = {}) const;
  // A size: like get, and at least 1.
  int64_t size(std::string_view key, int64_t fallback, std::string_view help = {}) const;
  bool has(std::string_view key) const;

  const std::vector<Read>& reads() const { return reads_; }
  const Options& given() const { return given_; }
  // Throws Error naming the first given key that was never read, and the nearest key that was.
  void refuse_unread() const;
  // "block 7 'M' (mamba2)": for the layer's own error sentences.
  const std::string& place() const { return place_; }

 private:
  const OptionValue* find(std::string_view key, const OptionValue& fallback,
                          std::string_view help) const;
  int64_t d_model_, d_in_, n_blocks_;
  Options given_;
  std::string place_;
  mutable std::vector<Read> reads_;
};

class STRATA_API Layer {
 public:
  using Config = LayerConfig;
  Layer();
  virtual ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  // x: (batch, seq_len, d_in) -> (batch, seq_len, d_model). Depends on shapes and options only,
  // never on values.
  virtual Tensor forward(Context& cx, Tensor x, Pass& pass) = 0;

  // dy -> dx, adding parameter gradients. The default replays the tape of forward. A layer with a
  // backward of its own is run unrecorded and finds in `pass` what its forward saved.
  virtual Tensor backward(Context& cx, Tensor dy, Pass& pass);

  // What one sequence carries. The default is what the operations of forward declare.
  virtual std::vector<StateSpec> state() const;

  // The default quantizes two- and three-dimensional projections and keeps everything else.
  virtual QuantChoice quantize(const ParamSlot& param) const;

  // Runs once per optimizer step with what forward gave to Context::add_count (bias balancing of
  // routers). A skipped step counts nothing.
  virtual void after_step(Context& cx, const StepCounts& counts);

  std::deque<ParamSlot>& params() { return params_; }
  const std::deque<ParamSlot>& params() const { return params_; }

 protected:
  // Declares a parameter; names as in checkpoints ("in_proj", "conv1d.weight", "A_log").
  Param param(std::string_view name, const Shape& shape, ParamOptions options = {});
  // Declares a saved tensor without a gradient.
  Param buffer(std::string_view name, const Shape& shape, ParamOptions options = {});

 private:
  std::deque<ParamSlot> params_;
};

}  // namespace strata
