// The layer with weights and activations of two bytes, against float64: how far rounding may carry
// it, that one-token steps still agree with the whole, and that two runs give the same bits.
#include <algorithm>
#include <cmath>

#include "core/tensor/convert.h"
#include "plugins/kit/checks.h"

namespace strata::kit {
namespace {

// |a - b| / |b| over all elements; `floor` per element keeps tensors of nothing from counting.
double distance(const Values& a, const Values& b, double floor = 1e-3) {
  if (a.size() != b.size()) return INFINITY;
  double off = 0, size = floor * floor * double(b.size());
  for (size_t i = 0; i < b.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    off += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(off / size);
}

double root_mean_square(const Values& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum / std::max<double>(1, double(x.size())));
}

// bf16 keeps 8 bits: each rounding is off by 2^-9 at most, and a layer has a dozen in a row.
constexpr double kForward = 1e-2, kBackward = 2e-2;
// Where a gradient is a small difference of large terms, rounding x alone moves it; so much more
// may the rest of the layer. What only scales the input of a norm has no gradient at all, but
// rounding gives it one: vectors are measured against the largest gradient beside them.
constexpr double kAmplified = 12, kMost = 0.5;
constexpr int64_t kSteps = 6, kLength = 70;

Values rounded(const Values& x, DType dtype) {
  std::vector<uint16_t> bits(x.size());
  Values out(x.size());
  convert_numbers(x.data(), DType::f64, bits.data(), dtype, x.size());
  convert_numbers(bits.data(), dtype, out.data(), DType::f64, x.size());
  return out;
}

// The float64 layer gets the numbers that the other one has.
void share_weights(Bed& exact, Bed& half) {
  auto& to = exact.layer().params();
  auto from = half.layer().params().begin();
  for (ParamSlot& p : to) assign(p.value, values_of((from++)->value));
}

// The largest distance of a gradient, in units in which kBackward is the limit.
std::pair<double, std::string> worst_gradient(Bed& bed, const Gradients& got, const Gradients& want,
                                              const Gradients& moved) {
  const auto scaled = [](const Values& g, const Values& w, const Values& m, double floor) {
    return distance(g, w, floor) * kBackward /
           std::clamp(kAmplified * distance(m, w, floor), kBackward, kMost);
  };
  double most = 1e-3;
  for (const Values& w : want.params) most = std::max(most, root_mean_square(w));
  double worst = scaled(got.dx, want.dx, moved.dx, 1e-3);
  std::string name = "the input";
  for (size_t i = 0; i < want.params.size(); ++i) {
    const bool vector = bed.layer().params()[i].shape.rank < 2;
    const double off = scaled(got.params[i], want.params[i], moved.params[i], vector ? most : 1e-3);
    if (off <= worst) continue;
    worst = off;
    name = bed.layer().params()[i].name;
  }
  return {worst, name};
}

double steps_apart(Bed& bed) {
  const Batch in = bed.random_batch(2, kLength);
  const Values whole = bed.infer(in);
  KitState state(in.batch, 192);
  double worst = 0;
  for (int64_t begin = 0; begin < kLength;) {
    const int64_t end = begin == 0 ? kLength - kSteps : begin + 1;
    const Values y =
        bed.step(state, begin == 0 ? Mode::prefill : Mode::decode, slice(in, begin, end));
    worst = std::max(worst, distance(y, slice({in.batch, kLength, whole, {}}, begin, end).x));
    begin = end;
  }
  return worst;
}

}  // namespace

Rows check_half(const LayerChoice& c) {
  Rows rows;
  for (const auto& [batch, seq_len] : {std::pair<int64_t, int64_t>{2, 65}, {3, 1}, {1, 300}}) {
    const std::string shape = " " + std::to_string(batch) + " x " + std::to_string(seq_len);
    Bed exact(c, DType::f64), half(c, DType::bf16);
    share_weights(exact, half);
    const Batch drawn = exact.random_batch(batch, seq_len);
    Batch in = drawn;
    in.x = rounded(drawn.x, DType::bf16);
    const Values dy = rounded(exact.random_values(int64_t(in.x.size()), 6), DType::bf16);
    const Gradients want = exact.train(in, dy), moved = exact.train(drawn, dy);
    const Gradients got = half.train(in, dy);
    rows.push_back(measured("bf16 forward" + shape, distance(got.y, want.y), kForward));
    const auto [off, name] = worst_gradient(half, got, want, moved);
    rows.push_back(measured("bf16 backward" + shape, off, kBackward, "worst: " + name));
    const Gradients again = half.train(in, dy);
    const bool same = again.y == got.y && again.dx == got.dx && again.params == got.params;
    rows.push_back(measured("bf16 determinism" + shape, same ? 0 : 1, 0));
  }
  Bed bf16(c, DType::bf16), f16(c, DType::f16), exact(c, DType::f64);
  rows.push_back(measured("bf16 steps", steps_apart(bf16), 2 * kForward, "against the whole"));
  share_weights(exact, f16);
  Batch in = f16.random_batch(2, 65);
  in.x = rounded(in.x, DType::f16);
  rows.push_back(measured("f16 forward", distance(f16.infer(in), exact.infer(in)), kForward));
  rows.push_back(measured("f16 steps", steps_apart(f16), 2 * kForward, "against the whole"));
  return rows;
}

}  // namespace strata::kit
