// Benchmarks: every row says what was measured, against which floor or reference in the same run,
// and the ratio. Times are medians of interleaved runs, so that a busy machine slows both sides.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace strata::bench {

struct Row {
  std::string name, shape;
  double measured = 0, reference = 0;
  std::string unit, reference_name;
  double ratio = 0;  // 1: as good as the reference
  double bar = 0;    // the least ratio that is wanted; 0: for information
};

// Median seconds of each function over `rounds` interleaved runs, after one warm-up each. A run
// repeats its function until it lasts at least 2 ms.
std::vector<double> medians(const std::vector<std::function<void()>>& functions, int rounds = 9);

// The float32 matmul rate of this machine, in flops per second: oneDNN on 2048 x 1024 x 4096.
std::function<void()> matmul_probe();
constexpr double kProbeFlops = 2.0 * 2048 * 1024 * 4096;

std::vector<Row> linear_rows();
std::vector<Row> attention_rows();
std::vector<Row> ssd_rows();
std::vector<Row> training_rows();
std::vector<Row> decode_rows();
std::vector<Row> thread_rows();

}  // namespace strata::bench
