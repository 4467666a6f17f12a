#include "experiments/evaluate/golden_file.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace strata::golden {

double Values::largest() const {
  double most = 0;
  for (const double x : data) most = std::max(most, std::fabs(x));
  return most;
}

Values load(const Safetensors& file, const std::string& name) {
  const StoredTensor& tensor = file.at(name);
  return {values_of(tensor), tensor.shape};
}

Values load(const Safetensors& file, const std::string& name, const std::vector<int64_t>& shape) {
  Values values = load(file, name);
  bool fits = values.shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] < 0 ? values.shape[i] > 0 : values.shape[i] == shape[i];
  }
  if (fits) return values;
  throw Error(file.path() + ": tensor " + name + ": expected shape " + shape_text(shape) +
              " (-1: any), got " + shape_text(values.shape));
}

namespace {

template <class T>
void append(const Tensor& tensor, std::vector<double>& out) {
  for (int64_t r = 0; r < tensor.rows(); ++r) {
    const T* row = tensor.row<T>(r);
    out.insert(out.end(), row, row + tensor.cols());
  }
}

}  // namespace

std::vector<double> read_tensor(const Tensor& tensor) {
  std::vector<double> out;
  out.reserve(size_t(tensor.numel()));
  switch (tensor.dtype) {
    case DType::f32:
      append<float>(tensor, out);
      break;
    case DType::f64:
      append<double>(tensor, out);
      break;
    case DType::i32:
      append<int32_t>(tensor, out);
      break;
    case DType::i64:
      append<int64_t>(tensor, out);
      break;
    default:
      throw Error(std::string("a golden check cannot read ") + name_of(tensor.dtype));
  }
  return out;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(a[i] - b[i]);
    if (!(difference <= most)) most = difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return most;
}

void Worst::add(double error, const std::string& what) {
  ++count_;
  if (error <= error_) return;
  error_ = error;
  what_ = what;
}

GoldenRow Worst::row(const std::string& name, double tolerance) const {
  return row_of(name, error_, tolerance,
                count_ > 1 ? "worst of " + std::to_string(count_) + ": " + what_ : what_);
}

GoldenRow row_of(const std::string& name, double error, double tolerance, std::string note) {
  const bool is_ok = error >= 0 && error <= tolerance;
  return {name, error, tolerance, is_ok ? GoldenStatus::ok : GoldenStatus::failed, std::move(note)};
}

GoldenRow skipped(const std::string& name, std::string reason) {
  return {name, 0, 0, GoldenStatus::skipped, std::move(reason)};
}

GoldenRow failed(const std::string& name, std::string reason) {
  return {name, std::numeric_limits<double>::infinity(), 0, GoldenStatus::failed,
          std::move(reason)};
}

}  // namespace strata::golden
