#include "core/ops/rope.h"

#include "core/ops/help.h"

#include <cmath>
#include <numbers>

namespace strata {

static const Op<RopeArgs> rope_op("rope");

std::vector<double> rope_inverse_frequencies(const RopeOptions& o) {
  const int64_t rotary = o.rotary_dim ? o.rotary_dim : o.head_dim;
  std::vector<double> f(size_t(rotary / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    f[i] = std::pow(o.theta, -2.0 * double(i) / double(rotary));
    if (o.factor <= 0) continue;
    // Turns that the wave makes within the original context.
    const double turns = double(o.original_max_position) * f[i] / (2 * std::numbers::pi);
    const double keep =
        turns <= o.low_freq_factor ? 0
        : turns >= o.high_freq_factor
            ? 1
            : (turns - o.low_freq_factor) / (o.high_freq_factor - o.low_freq_factor);
    f[i] *= keep + (1 - keep) / o.factor;
  }
  return f;
}

Tensor rope(Context& cx, Tensor x, Tensor positions, const RopeOptions& o) {
  const int64_t rotary = o.rotary_dim ? o.rotary_dim : o.head_dim;
  const std::string where = std::string(cx.place()) + ": rope: ";
  if (o.head_dim < 1 || x.shape.rank < 2 || x.cols() % o.head_dim)
    throw Error(where + "x must be (batch, seq_len, n_heads * head_dim), head_dim = " +
                std::to_string(o.head_dim) + ", got " + to_string(x.shape));
  if (rotary < 2 || rotary % 2 || rotary > o.head_dim || rotary > 2 * kMaxRotaryPairs)
    throw Error(
        where + "rotary_dim must be even, from 2 to head_dim = " + std::to_string(o.head_dim) +
        " and at most " + std::to_string(2 * kMaxRotaryPairs) + ", got " + std::to_string(rotary));
  if (!positions || positions.dtype != DType::i32 || positions.numel() != x.rows())
    throw Error(where + "positions must be i32, one for each of the " + std::to_string(x.rows()) +
                " tokens, got " + to_string(positions.shape));
  RopeArgs args{x, positions, {}, false, false, o.head_dim, int(rotary / 2)};
  const std::vector<double> f = rope_inverse_frequencies(o);
  for (size_t i = 0; i < f.size(); ++i) args.frequencies[i] = f[i];
  args.y = cx.track(cx.alloc(x.shape, x.dtype));
  rope_op(cx, x.dtype, args);
  cx.record([args, x](Context& cx) {
    const Tensor dy = cx.grad(args.y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (!dx.wanted) return;
    RopeArgs back = args;
    back.x = dy;
    back.y = dx.grad;
    back.inverse = true;
    back.accumulate = dx.accumulate;
    rope_op(cx, dy.dtype, back);
  });
  return args.y;
}

STRATA_OP_HELP("rope", R"(rotary position embedding, half-split form
  Tensor rope(Context&, Tensor x, Tensor positions, {.head_dim, .rotary_dim, .theta, ...});
  x, y  (batch, seq_len, n_heads * head_dim)      positions (batch, seq_len) i32: pass.positions()
State: none; positions restart with a document. Gradient: x. Source: arXiv 2104.09864.
  #include "core/ops/rope.h"
  q = rope(cx, q, pass.positions(), {.head_dim = 64});)")

}  // namespace strata
