#include "core/ops/causal_conv1d.h"

#include "core/ops/help.h"

namespace strata {

static const Op<CausalConv1dArgs> conv_op("causal_conv1d");
static const Op<CausalConv1dBackwardArgs> conv_backward_op("causal_conv1d_backward");

static void check(Context& cx, Tensor x, Tensor weight, Tensor bias, Tensor initial) {
  const std::string at = std::string(cx.place()) + ": causal_conv1d: ";
  if (x.shape.rank != 3)
    throw Error(at + "x must be (batch, seq_len, channels), got " + to_string(x.shape));
  const int64_t channels = x.cols();
  if (weight.shape.rank != 3 || weight.shape[0] != channels || weight.shape[1] != 1 ||
      !weight.contiguous())
    throw Error(at + "weight must be (channels=" + std::to_string(channels) + ", 1, kernel), got " +
                to_string(weight.shape));
  if (weight.shape[2] < 1 || weight.shape[2] > kConvMaxKernel)
    throw Error(at + "the kernel must be 1 to " + std::to_string(kConvMaxKernel) + " wide, got " +
                std::to_string(weight.shape[2]));
  if (bias && bias.numel() != channels)
    throw Error(at + "bias must be (" + std::to_string(channels) + ",), got " +
                to_string(bias.shape));
  const Shape tail{x.shape[0], weight.shape[2] - 1, channels};
  if (initial && !(initial.shape == tail))
    throw Error(at + "the initial inputs must be " + to_string(tail) + ", got " +
                to_string(initial.shape));
}

Tensor causal_conv1d(Context& cx, Tensor x, Tensor weight, Tensor bias, Pass& pass,
                     const CausalConv1dOptions& options) {
  const Tensor initial = options.initial;
  check(cx, x, weight, bias, initial);
  const int64_t batch = x.shape[0], seq_len = x.shape[1], channels = x.cols();
  const int64_t kernel = weight.shape[2];
  const Tensor seq_idx = pass.seq_idx();
  StateRef tail;
  if (kernel > 1) tail = pass.state(pass.unique("conv"), {kernel - 1, channels}, x.dtype);
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  {
    ScratchScope scope(cx);
    const Tensor taps = cx.scratch({kernel, channels}, x.dtype);
    conv_op(cx, x.dtype, {x, weight, bias, initial, seq_idx, tail, taps, y, options.silu});
  }
  const bool silu = options.silu;
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dweight = cx.grad_target(weight),
                     dbias = bias ? cx.grad_target(bias) : GradTarget{},
                     dinitial = initial ? cx.grad_target(initial) : GradTarget{};
    ScratchScope scope(cx);
    const Tensor taps = cx.scratch({kernel, channels}, x.dtype);
    Tensor partial;
    const int64_t block = conv_time_block(x);
    if (dweight.wanted || dbias.wanted)
      partial = cx.scratch({batch * ((seq_len + block - 1) / block), (kernel + 1) * channels},
                           cx.accum_dtype());
    conv_backward_op(
        cx, x.dtype,
        {x, weight, bias, initial, seq_idx, dy, dx, dweight, dbias, dinitial, taps, partial, silu});
  });
  return y;
}

STRATA_OP_HELP("causal_conv1d", R"(depthwise causal convolution over time
  Tensor causal_conv1d(Context&, Tensor x, Tensor weight, Tensor bias, Pass&, {.silu, .initial});
  x, y  (batch, seq_len, channels), x may be a slice       weight (channels, 1, kernel)
  bias  (channels,) or absent                              initial (batch, kernel - 1, channels)
y_t = act(bias + sum_j weight[j] x_{t - kernel + 1 + j}); act is silu on request.
State: "conv" (kernel - 1, channels), the last inputs; declared by the operation. Inputs of another
document (pass.seq_idx) count as zero. Gradient: x, weight, bias, initial.
  #include "core/ops/causal_conv1d.h"
  Tensor h = causal_conv1d(cx, x, conv_, conv_bias_, pass, {.silu = true});)")

}  // namespace strata
