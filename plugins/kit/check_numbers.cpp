// The same numbers in float32 as in float64, in every run, with any number of threads, and nearly
// the same with weights in int8.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/quant/int8.h"
#include "plugins/kit/checks.h"

namespace strata::kit {
namespace {

double apart(const std::vector<Values>& a, const std::vector<Values>& b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) worst = std::max(worst, difference(a[i], b[i], 1e-3));
  return worst;
}

size_t bits_apart(const Values& a, const Values& b) {
  size_t count = 0;
  for (size_t i = 0; i < b.size(); ++i) count += a[i] != b[i];
  return count;
}

size_t bits_apart(const Gradients& a, const Gradients& b) {
  size_t count = bits_apart(a.y, b.y) + bits_apart(a.dx, b.dx);
  for (size_t i = 0; i < b.params.size(); ++i) count += bits_apart(a.params[i], b.params[i]);
  return count;
}

Gradients train_in(const LayerChoice& c, DType dtype, int64_t batch, int64_t seq_len) {
  Bed bed(c, dtype);
  const Batch in = bed.random_batch(batch, seq_len);
  return bed.train(in, bed.random_values(int64_t(in.x.size()), 6));
}

class Threads {
 public:
  explicit Threads(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace

Rows check_numbers(const LayerChoice& c) {
  const Gradients f64 = train_in(c, DType::f64, 2, 65), f32 = train_in(c, DType::f32, 2, 65);
  Rows rows = {measured("float32 forward", difference(f32.y, f64.y), 2e-4),
               measured("float32 backward",
                        std::max(difference(f32.dx, f64.dx), apart(f32.params, f64.params)), 2e-3)};
  const size_t again = bits_apart(train_in(c, DType::f32, 2, 65), f32) +
                       bits_apart(train_in(c, DType::f64, 2, 65), f64);
  rows.push_back(measured("determinism", double(again), 0,
                          again ? "values differ between two equal runs" : ""));
  Gradients by_threads[3];
  for (int n = 1; n <= 3; ++n) {
    const Threads threads(n);
    by_threads[n - 1] = train_in(c, DType::f32, 3, 130);
  }
  double worst = 0;
  size_t bits = 0;
  for (const int n : {1, 2}) {
    const Gradients &a = by_threads[n], &b = by_threads[0];
    worst =
        std::max({worst, difference(a.y, b.y), difference(a.dx, b.dx), apart(a.params, b.params)});
    bits += bits_apart(a, b);
  }
  rows.push_back(measured("threads 1, 2, 3", worst, 1e-4, bits == 0 ? "the same bits" : ""));
  return rows;
}

// The same layer on the CPU and on the choice's device.
Rows check_devices(const LayerChoice& c) {
  LayerChoice cpu = c;
  cpu.device = {};
  Rows rows;
  for (const auto& [batch, seq_len] : {std::pair<int64_t, int64_t>{2, 65}, {3, 1}, {1, 300}}) {
    const std::string shape = " " + std::to_string(batch) + " x " + std::to_string(seq_len);
    const Gradients there = train_in(c, DType::f64, batch, seq_len);
    const Gradients here = train_in(cpu, DType::f64, batch, seq_len);
    rows.push_back(measured("as on the CPU" + shape,
                            std::max({difference(there.y, here.y), difference(there.dx, here.dx),
                                      apart(there.params, here.params)}),
                            1e-9, "float64, forward and every gradient"));
  }
  return rows;
}

// Weights that quantize() gives up go through int8 and back.
Rows check_quantize(const LayerChoice& c) {
  Bed bed(c, DType::f32);
  const Batch in = bed.random_batch(2, 33);
  const Values before = bed.infer(in);
  int quantized = 0, all = 0;
  double weights = 0;
  for (ParamSlot& p : bed.layer().params()) {
    all += !p.is_buffer;
    if (!bed.layer().quantize(p).quantize) continue;
    if (p.is_buffer) return {failed("int8", "quantize() gives up the buffer '" + p.name + "'")};
    ++quantized;
    weights = std::max(weights, int8_round_trip(p.value).worst);
  }
  const std::string note =
      std::to_string(quantized) + " of " + std::to_string(all) + " parameters quantize";
  if (quantized == 0) return {skipped("int8", note)};
  const Values after = bed.infer(in);
  double off = 0, total = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    off += (after[i] - before[i]) * (after[i] - before[i]);
    total += before[i] * before[i];
  }
  return {measured("int8 weights", weights, 1.001, "in units of half a step"),
          measured("int8", std::sqrt(off / std::max(total, 1e-30)), 0.05, note)};
}

}  // namespace strata::kit
