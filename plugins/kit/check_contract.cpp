// What forward may depend on, and what it must refuse.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/tensor/device.h"
#include "plugins/kit/checks.h"
#include "plugins/kit/isolate.h"

namespace strata::kit {
namespace {

constexpr std::array<int64_t, 7> kLengths = {1, 2, 3, 7, 31, 33, 65};

double apart(const std::vector<size_t>& a, const std::vector<size_t>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(double(a[i]) - double(b[i])));
  return most;
}

std::string shape_text(const Batch& in) {
  return "batch " + std::to_string(in.batch) + ", seq_len " + std::to_string(in.seq_len);
}

size_t not_finite(const Values& v) {
  return size_t(std::count_if(v.begin(), v.end(), [](double x) { return !std::isfinite(x); }));
}

}  // namespace

// Every operation has its kernels in float32 and, for check mode, in float64; and the planning pass
// knows the exact peaks of every arena.
Rows check_planning(const LayerChoice& c) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    Bed bed(c, dtype);
    const Batch in = bed.random_batch(1, 3);
    at_work("planning, where no value may be read, with " + shape_text(in));
    try {
      bed.peaks(in, true);
    } catch (const MissingKernel& e) {
      return {failed(kKernels, e.what())};
    }
  }
  Bed bed(c, DType::f64);
  double worst = 0;
  std::string note;
  for (const auto& [batch, seq_len] : {std::pair<int64_t, int64_t>{1, 1}, {2, 7}, {1, 65}}) {
    const Batch in = bed.random_batch(batch, seq_len);
    at_work("planning, where no value may be read, with " + shape_text(in));
    const auto planned = bed.peaks(in, true);
    at_work("running " + shape_text(in));
    const double off = apart(planned, bed.peaks(in, false));
    if (off > worst) note = shape_text(in) + ": bytes taken are not those planned";
    worst = std::max(worst, off);
  }
  return {measured(kKernels, 0, 0, "float64 and float32"), measured("planning", worst, 0, note)};
}

// Memory and tape depend on shapes and options only.
Rows check_values(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  Batch in = bed.random_batch(2, 9);
  const auto expected = bed.peaks(in, false);
  const size_t records = bed.forward(in, true)->cx.tape_size();
  double worst = 0;
  for (const double scale : {-1.0, 0.0, 30.0}) {
    Batch other = in;
    for (double& x : other.x) x *= scale;
    worst = std::max(worst, apart(expected, bed.peaks(other, false)));
    worst = std::max(worst,
                     std::abs(double(bed.forward(other, true)->cx.tape_size()) - double(records)));
  }
  return {measured("values", worst, 0,
                   worst > 0 ? "forward takes other memory or records for other values of x" : "")};
}

Rows check_shapes(const LayerChoice& c) {
  size_t bad = 0;
  std::string note;
  for (const DType dtype : {DType::f64, DType::f32}) {
    Bed bed(c, dtype);
    for (int64_t batch = 1; batch <= 3; ++batch)
      for (const int64_t seq_len : kLengths) {
        const Batch in = bed.random_batch(batch, seq_len);
        at_work(shape_text(in));
        bed.zero_grads();
        const auto site = bed.forward(in, true);
        size_t here = not_finite(values_of(site->y));
        here += not_finite(bed.backward(*site, bed.random_values(int64_t(in.x.size()), 9)));
        for (const Values& g : bed.grads()) here += not_finite(g);
        const bool changed =
            std::memcmp(site->before.data(), HostCopy(site->x)->data, site->before.size());
        if (changed) note = shape_text(in) + ": forward or backward writes to its input";
        if (here) note = shape_text(in) + ": " + std::to_string(here) + " values are not finite";
        bad += here + changed;
      }
  }
  return {measured("shapes", double(bad), 0, note)};
}

Rows check_bad_shapes(const LayerChoice& c) {
  Bed bed(c, DType::f64);
  if (bed.layer().params().empty())
    return {skipped("bad shapes", "no parameters to disagree with")};
  for (const int64_t width : {c.d_model + 1, c.d_model - 1}) {
    if (width < 1) continue;
    at_work("d_model " + std::to_string(width));
    const Batch in{2, 3, bed.random_values(6 * width, 5), {}};
    try {
      bed.infer(in);
    } catch (const Error&) {
      continue;
    }
    return {failed("bad shapes", "accepts x (2, 3, " + std::to_string(width) + ") with d_model " +
                                     std::to_string(c.d_model) + "; throw an Error")};
  }
  return {measured("bad shapes", 0, 0)};
}

// Numbers that make no sense are refused in the constructor, or work.
Rows check_bad_options(const LayerChoice& c) {
  const LayerConfig config(c.d_model, 1, c.options, "kit");
  c.factory->create(c.symbol, config);
  Rows rows;
  for (const LayerConfig::Read& read : config.reads()) {
    for (const char* host :
         {"in", "residual", "out", "to", "in_scale", "out_scale", "norm", "lora"})
      if (read.key == host)
        return {failed("bad options", "option '" + read.key + "' is a wiring key of the host")};
    std::vector<OptionValue> bad;
    const bool number = read.fallback.index() == 1;
    if (number) bad = {int64_t{-1}, int64_t{0}, int64_t{3}};
    bad.push_back(read.fallback.index() == 3 ? OptionValue(int64_t{7})
                                             : OptionValue(std::string("x")));
    if (read.fallback.index() == 3) bad.push_back(std::string("no such choice"));
    for (const OptionValue& value : bad) {
      const std::string text = read.key + " = " + to_string(value);
      at_work(text);
      LayerChoice other = c;
      other.options[read.key] = value;
      try {
        Bed bed(other, DType::f64);
        bed.infer(bed.random_batch(1, 3));
        if (value.index() != 1 || !number)
          return {failed("bad options", "accepts " + text + "; throw an Error")};
      } catch (const Error&) {
      }
    }
  }
  return {measured("bad options", 0, 0)};
}

}  // namespace strata::kit
