// Helpers of the golden checks: stored values and the rows that compare with them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/contract/tensor.h"
#include "core/io/safetensors.h"
#include "core/tensor/convert.h"
#include "experiments/evaluate/check_golden.h"

namespace strata::golden {

// Values come as doubles, whatever is stored.
struct Values {
  std::vector<double> data;
  std::vector<int64_t> shape;
  double largest() const;  // of the absolute values
};

// What a tensor must be stored as; `f64` for what float64 code is compared with.
enum class Stored { floats, f64, integers };

// Throws Error naming file and tensor if it is missing, of another type or holds a value that is
// not finite.
Values load(const Safetensors& file, const std::string& name, Stored type = Stored::floats);
// The same, of a known shape; -1 stands for any extent.
Values load(const Safetensors& file, const std::string& name, const std::vector<int64_t>& shape,
            Stored type = Stored::floats);

// The largest |a - b|; infinite if one is not a number or the counts differ.
double largest_difference(const std::vector<double>& a, const std::vector<double>& b);
// The mean |a - b|, as careful.
double mean_difference(const std::vector<double>& a, const std::vector<double>& b);

// What the error of a gradient is measured by: its own largest value, or, if that is zero but for
// rounding (of queries that see one key, say), the largest of all gradients beside it.
double gradient_scale(double own_largest, double largest_of_all);

// Collects the worst of several comparisons into one row.
class Worst {
 public:
  // `error` is in the unit of the row's tolerance.
  void add(double error, const std::string& what);
  GoldenRow row(const std::string& name, double tolerance) const;
  bool empty() const { return count_ == 0; }
  int count() const { return count_; }

 private:
  double error_ = -1;
  std::string what_;
  int count_ = 0;
};

GoldenRow row_of(const std::string& name, double error, double tolerance, std::string note = "");
GoldenRow skipped(const std::string& name, std::string reason);
// A check that could not be made, because what it needs is not as it must be.
GoldenRow refused(const std::string& name, std::string reason);

}  // namespace strata::golden
