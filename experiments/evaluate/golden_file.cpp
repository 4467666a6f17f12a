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

namespace {

bool is_stored_as(DType dtype, Stored type) {
  const bool is_float =
      dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
  if (type == Stored::f64) return dtype == DType::f64;
  return type == Stored::floats ? is_float : dtype == DType::i64 || dtype == DType::i32;
}

const char* words(Stored type) {
  return type == Stored::f64      ? "F64"
         : type == Stored::floats ? "floating-point numbers"
                                  : "integers (I64 or I32)";
}

}  // namespace

Values load(const Safetensors& file, const std::string& name, Stored type) {
  const StoredTensor& tensor = file.at(name);
  const std::string where = file.path() + ": tensor " + name;
  if (!is_stored_as(tensor.dtype, type)) {
    throw Error(where + ": expected " + words(type) + ", got " + safetensors_name(tensor.dtype));
  }
  Values values{values_of(tensor), tensor.shape};
  for (size_t i = 0; i < values.data.size(); ++i) {
    if (std::isfinite(values.data[i])) continue;
    throw Error(where + ": expected finite values, got " + std::to_string(values.data[i]) +
                " at element " + std::to_string(i));
  }
  return values;
}

Values load(const Safetensors& file, const std::string& name, const std::vector<int64_t>& shape,
            Stored type) {
  Values values = load(file, name, type);
  bool fits = values.shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] < 0 ? values.shape[i] > 0 : values.shape[i] == shape[i];
  }
  if (fits) return values;
  const bool is_open = std::find(shape.begin(), shape.end(), -1) != shape.end();
  throw Error(file.path() + ": tensor " + name + ": expected shape " + shape_text(shape) +
              (is_open ? " (-1: any but 0), got " : ", got ") + shape_text(values.shape));
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

double mean_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::fabs(a[i] - b[i]);
  const double mean = sum / std::max(1.0, double(a.size()));
  return std::isnan(mean) ? std::numeric_limits<double>::infinity() : mean;
}

double gradient_scale(double own_largest, double largest_of_all) {
  constexpr double kRounding = 1e-12;
  const bool has_own = own_largest > kRounding * largest_of_all;
  return std::max(has_own ? own_largest : largest_of_all, 1e-30);
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

GoldenRow refused(const std::string& name, std::string reason) {
  return {name, std::numeric_limits<double>::infinity(), 0, GoldenStatus::refused,
          std::move(reason)};
}

}  // namespace strata::golden
