#include "experiments/evaluate/op_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/tensor/convert.h"

namespace strata::golden {

namespace {

constexpr size_t kArenaBytes = size_t{4} << 30;  // reserved, touched only as far as used

Shape shape_of(const std::vector<int64_t>& dims) {
  if (dims.size() > size_t(kMaxRank))
    throw Error("a golden tensor has more axes than a tensor may");
  Shape shape;
  for (const int64_t dim : dims) shape.dim[shape.rank++] = dim;
  if (shape.rank == 0) shape = {1};
  return shape;
}

// Exchanges the last two axes of packed values of the given shape.
std::vector<double> exchanged(const std::vector<double>& values, const Shape& shape) {
  const int64_t rows = shape[-2], cols = shape[-1];
  std::vector<double> out(values.size());
  if (values.empty()) return out;
  for (size_t base = 0; base < values.size(); base += size_t(rows * cols)) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        out[base + size_t(c * rows + r)] = values[base + size_t(r * cols + c)];
      }
    }
  }
  return out;
}

Shape exchanged(Shape shape) {
  std::swap(shape[-1], shape[-2]);
  return shape;
}

void fill_with(const Tensor& tensor, const std::vector<double>& values) {
  for (int64_t r = 0; r < tensor.rows(); ++r) {
    for (int64_t c = 0; c < tensor.cols(); ++c) {
      const double value = values[size_t(r * tensor.cols() + c)];
      if (tensor.dtype == DType::f64) {
        tensor.row<double>(r)[c] = value;
      } else {
        tensor.row<float>(r)[c] = float(value);
      }
    }
  }
}

double relative(const std::vector<double>& got, const Values& expected) {
  return largest_difference(got, expected.data) / std::max(expected.largest(), 1e-30);
}

}  // namespace

OpCase::OpCase(const Safetensors& file, const Json& about, DType dtype, LayerFactory& factory)
    : file_(file),
      about_(about),
      factory_(factory),
      dtype_(dtype),
      memory_(Device{}, kArenaBytes, kArenaBytes),
      cx_(memory_, dtype) {}

void OpCase::begin(const std::string& prefix) {
  cx_.clear_tape();
  memory_.activations.release(0);
  memory_.scratch.release(0);
  prefix_ = prefix;
  inputs_.clear();
  outputs_.clear();
  cx_.set_recording(true);
  cx_.set_place("golden operator");
}

Tensor OpCase::filled(const std::string& stored, Layout layout, const Shape& wanted) {
  const Values values = load(file_, stored, Stored::f64);
  const Shape shape = shape_of(values.shape);
  const bool swap = layout == Layout::swapped;
  require(!values.data.empty(), stored + " must not be empty");
  require(!swap || shape.rank >= 2, stored + " must have at least 2 axes, got " + to_string(shape));
  const Shape own = wanted.rank ? wanted : swap ? exchanged(shape) : shape;
  if (own.numel() != int64_t(values.data.size())) {
    throw Error(file_.path() + ": " + stored + " does not have the shape " + to_string(own));
  }
  const Tensor tensor = cx_.alloc(own);
  fill_with(tensor, swap ? exchanged(values.data, shape) : values.data);
  return tensor;
}

Tensor OpCase::in(const std::string& name, Layout layout, const Shape& shape) {
  for (const Variable& input : inputs_) {
    if (input.name == name) return input.tensor;
  }
  const Tensor tensor = cx_.track(filled("in." + name, layout, shape));
  inputs_.push_back({name, tensor, layout});
  return tensor;
}

Tensor OpCase::constant(const std::string& stored, Layout layout, int rank) {
  const size_t axes = file_.at(stored).shape.size();
  require(rank < 0 || axes == size_t(rank),
          stored + " must have " + std::to_string(rank) + " axes, got " + std::to_string(axes));
  return filled(stored, layout, {});
}

void OpCase::require(bool fits, const std::string& sentence) const {
  if (!fits) throw Error(file_.path() + ": " + sentence);
}

Tensor OpCase::integers(const std::string& stored) {
  const Values values = load(file_, stored, Stored::integers);
  const Tensor tensor = cx_.alloc(shape_of(values.shape), DType::i32);
  for (size_t i = 0; i < values.data.size(); ++i) {
    const double value = values.data[i];
    if (std::fabs(value) >= 0x1p31)
      throw Error(file_.path() + ": " + stored + " holds " + std::to_string(value) +
                  ", which 32 bits cannot hold");
    tensor.ptr<int32_t>()[i] = int32_t(value);
  }
  return tensor;
}

void OpCase::output(const std::string& name, Tensor y, Layout layout) {
  std::vector<double> got = numbers_of(y);
  if (layout == Layout::swapped) got = exchanged(got, y.shape);
  compare(prefix_ + name, got);
  outputs_.push_back({name, y, layout});
}

void OpCase::compare(const std::string& stored, const std::vector<double>& got) {
  compared_.insert(stored);
  values_.add(relative(got, load(file_, stored, Stored::f64)), stored);
}

void OpCase::set_cotangent(const Variable& output) {
  const GradTarget target = cx_.grad_target(output.tensor);
  if (!target.wanted) return;
  const std::string stored = prefix_ + "cotangent." + output.name;
  if (!has(stored)) {
    fill_with(target.grad, std::vector<double>(size_t(output.tensor.numel()), 1.0));
    return;
  }
  const Values values = load(file_, stored, Stored::f64);
  const Tensor& y = output.tensor;
  const bool swap = output.layout == Layout::swapped;
  require(int64_t(values.data.size()) == y.numel() &&
              (!swap || values.shape.size() == size_t(y.shape.rank)),
          stored + " is " + shape_text(values.shape) + ", the output " + to_string(y.shape));
  fill_with(target.grad, swap ? exchanged(values.data, shape_of(values.shape)) : values.data);
}

void OpCase::gradients() {
  for (const Variable& output : outputs_) set_cotangent(output);
  cx_.replay(0);
  for (const Variable& input : inputs_) {
    const Tensor grad = cx_.grad(input.tensor);
    std::vector<double> got = grad ? numbers_of(grad) : std::vector<double>{};
    if (grad && input.layout == Layout::swapped) got = exchanged(got, grad.shape);
    gradient(input.name, got);
  }
}

void OpCase::gradient(const std::string& name, const std::vector<double>& got) {
  const std::string stored = prefix_ + "grad." + name;
  if (!has(stored)) return;
  const Values expected = load(file_, stored, Stored::f64);
  const double scale = gradient_scale(expected.largest(), largest_gradient());
  gradients_.add(largest_difference(got, expected.data) / scale, stored);
}

double OpCase::largest_gradient() const {
  double most = 0;
  for (const StoredTensor& tensor : file_.tensors()) {
    if (!tensor.name.starts_with(prefix_ + "grad.")) continue;
    most = std::max(most, load(file_, tensor.name, Stored::f64).largest());
  }
  return most;
}

std::vector<GoldenRow> OpCase::rows(const std::string& name, bool is_scan) const {
  const bool exact = dtype_ == DType::f64;
  const std::string suffix = std::string(" ") + name_of(dtype_);
  std::vector<GoldenRow> rows;
  if (!values_.empty()) rows.push_back(values_.row(name + suffix, exact ? 1e-11 : 1e-5));
  if (!gradients_.empty()) {
    const double tolerance = exact ? 1e-11 : is_scan ? 1e-4 : 1e-5;
    rows.push_back(gradients_.row(name + " gradients" + suffix, tolerance));
  }
  for (const StoredTensor& tensor : file_.tensors()) {
    const bool is_output = tensor.name == "y" || tensor.name.ends_with(".y");
    if (!is_output || tensor.name.find("cotangent.") != std::string::npos) continue;
    if (compared_.count(tensor.name)) continue;
    rows.push_back(skipped(name + suffix, "needs a check of the variant " + tensor.name));
  }
  return rows;
}

// ------------------------------------------------------------------------------------------- pass
OpPass::OpPass(int64_t batch, Mode mode) : batch_(batch), mode_(mode) {
  for (int64_t b = 0; b < batch; ++b) slots_.push_back(int32_t(b));
}

StateRef OpPass::state(std::string_view name, const Shape& per_sequence, DType dtype) {
  if (mode_ == Mode::train) return {};
  const size_t bytes = size_t(per_sequence.numel()) * size_of(dtype);
  Stored& stored = states_[std::string(name)];
  stored.dtype = dtype;
  stored.bytes.resize(bytes * size_t(batch_));
  return {stored.bytes.data(), int64_t(bytes), slots_.data()};
}

Tensor OpPass::fetch(std::string_view name) {
  throw Error("a golden operator asks for the tensor " + std::string(name) + " of another block");
}

void OpPass::save(std::string_view name, Tensor value) { saved_[std::string(name)] = value; }

Tensor OpPass::saved(std::string_view name) const {
  const auto found = saved_.find(name);
  return found == saved_.end() ? Tensor{} : found->second;
}

std::vector<double> OpPass::state_values(const std::string& name) const {
  const auto found = states_.find(name);
  if (found == states_.end()) throw Error("the operator keeps no state " + name);
  const Stored& stored = found->second;
  std::vector<double> values(stored.bytes.size() / size_of(stored.dtype));
  convert_numbers(stored.bytes.data(), stored.dtype, values.data(), DType::f64, values.size());
  return values;
}

void OpPass::set_state(const std::string& name, const std::vector<double>& values, DType dtype) {
  Stored& stored = states_[name];
  stored.dtype = dtype;
  stored.bytes.resize(values.size() * size_of(dtype));
  convert_numbers(values.data(), DType::f64, stored.bytes.data(), dtype, values.size());
}

}  // namespace strata::golden
