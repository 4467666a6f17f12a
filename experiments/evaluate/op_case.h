// One golden operator in one dtype: its stored tensors as inputs, and the comparison of outputs and
// gradients with what is stored.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/io/json.h"
#include "core/tensor/memory.h"
#include "experiments/evaluate/golden_file.h"

namespace strata::golden {

// How a stored tensor lies here: as it is, or with its last two axes exchanged.
enum class Layout { same, swapped };

class OpCase {
 public:
  OpCase(const Safetensors& file, const Json& about, DType dtype, LayerFactory& factory);
  OpCase(const OpCase&) = delete;

  Context& cx() { return cx_; }
  const Json& about() const { return about_; }
  LayerFactory& factory() { return factory_; }
  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  // Starts a variant ("stateful."): forgets tensors and tape; recording is on.
  void begin(const std::string& prefix);

  // The stored tensor `in.NAME` as a variable, once per variant; `shape` if given has as many
  // elements. Throws Error if the file has none.
  Tensor in(const std::string& name, Layout layout = Layout::same, const Shape& shape = {});
  // A stored tensor as numbers here, no variable; with `rank` axes, if that is given.
  Tensor constant(const std::string& stored, Layout layout = Layout::same, int rank = -1);
  Tensor integers(const std::string& stored);
  // Throws Error about the file unless `fits`: "in.labels must be ...".
  void require(bool fits, const std::string& sentence) const;

  // Compares an output with PREFIX.NAME, and remembers it for gradients().
  void output(const std::string& name, Tensor y, Layout layout = Layout::same);
  // Compares only.
  void compare(const std::string& stored, const std::vector<double>& got);
  // Runs the tape backwards from the stored cotangents (or from ones) and compares the gradient of
  // every input that has a stored one.
  void gradients();
  // A gradient that was found in another way, compared with PREFIX.grad.NAME if that is stored.
  void gradient(const std::string& name, const std::vector<double>& got);

  // Two rows: outputs and gradients, relative to the largest value of each tensor; and a skipped
  // one for outputs that nothing was compared with.
  std::vector<GoldenRow> rows(const std::string& name, bool is_scan) const;

 private:
  struct Variable {
    std::string name;
    Tensor tensor;
    Layout layout;
  };
  Tensor filled(const std::string& stored, Layout layout, const Shape& shape);
  void set_cotangent(const Variable& output);
  double largest_gradient() const;  // of those that the variant has stored

  const Safetensors& file_;
  const Json& about_;
  LayerFactory& factory_;
  DType dtype_;
  Memory memory_;
  Context cx_;
  std::string prefix_;
  std::vector<Variable> inputs_, outputs_;
  Worst values_, gradients_;
  std::set<std::string> compared_;
};

// A Pass outside of any stack: fixed states live in vectors.
class OpPass final : public Pass {
 public:
  explicit OpPass(int64_t batch, Mode mode = Mode::train);
  Mode mode() const override { return mode_; }
  Tensor positions() const override { return positions_; }
  Tensor seq_idx() const override { return {}; }
  StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) override;
  PagesRef pages(std::string_view, const Shape&, DType, Growth) override { return {}; }
  std::string unique(std::string_view base) override { return std::string(base); }
  void publish(std::string_view, Tensor) override {}
  Tensor fetch(std::string_view name) override;
  void save(std::string_view name, Tensor value) override;
  Tensor saved(std::string_view name) const override;
  Random random() const override { return Random(0, 0); }
  void set_positions(Tensor positions) { positions_ = positions; }
  // The state of a name, (batch, ...) as doubles; made on first use.
  std::vector<double> state_values(const std::string& name) const;
  void set_state(const std::string& name, const std::vector<double>& values, DType dtype);

 private:
  struct Stored {
    DType dtype;
    std::vector<char> bytes;
  };
  int64_t batch_;
  Mode mode_;
  Tensor positions_;
  std::vector<int32_t> slots_;
  std::map<std::string, Stored, std::less<>> states_;
  std::map<std::string, Tensor, std::less<>> saved_;
};

}  // namespace strata::golden
