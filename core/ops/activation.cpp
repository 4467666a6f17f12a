#include "core/ops/activation.h"

#include "core/contract/options.h"
#include "core/ops/help.h"

namespace strata {

static const Op<ActivationArgs> activation_op("activation");
static const Op<ActivationBackwardArgs> activation_backward_op("activation_backward");
static const Op<GatedArgs> gated_op("gated");
static const Op<GatedBackwardArgs> gated_backward_op("gated_backward");

static constexpr const char* kNames[] = {"identity",  "relu",    "relu2", "silu",     "gelu",
                                         "gelu_tanh", "sigmoid", "tanh",  "softplus", "exp"};

const char* name_of(Activation act) { return kNames[int(act)]; }

Activation activation_of(std::string_view name, std::string_view place) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return Activation(i);
  if (name == "swish") return Activation::silu;
  std::string known;
  for (const char* n : kNames) known += std::string(known.empty() ? "" : ", ") + n;
  const std::string near = nearest(std::string(name), kNames);
  throw Error(std::string(place) + ": unknown activation '" + std::string(name) + "'" +
              (near.empty() ? "" : "; did you mean '" + near + "'?") + " Known: " + known);
}

Tensor activation(Context& cx, Tensor x, Activation act) {
  if (act == Activation::identity) return x;
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  activation_op(cx, x.dtype, {act, x, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) activation_backward_op(cx, x.dtype, {act, x, dy, dx});
  });
  return y;
}

Tensor relu(Context& cx, Tensor x) { return activation(cx, x, Activation::relu); }
Tensor relu2(Context& cx, Tensor x) { return activation(cx, x, Activation::relu2); }
Tensor silu(Context& cx, Tensor x) { return activation(cx, x, Activation::silu); }
Tensor gelu(Context& cx, Tensor x) { return activation(cx, x, Activation::gelu); }
Tensor gelu_tanh(Context& cx, Tensor x) { return activation(cx, x, Activation::gelu_tanh); }
Tensor sigmoid(Context& cx, Tensor x) { return activation(cx, x, Activation::sigmoid); }
Tensor tanh(Context& cx, Tensor x) { return activation(cx, x, Activation::tanh); }
Tensor softplus(Context& cx, Tensor x) { return activation(cx, x, Activation::softplus); }
Tensor exp(Context& cx, Tensor x) { return activation(cx, x, Activation::exp); }

Tensor gated(Context& cx, Tensor gate, Tensor up, Activation act) {
  if (!(gate.shape == up.shape))
    throw Error(std::string(cx.place()) + ": gated: gate and up must have one shape, got " +
                to_string(gate.shape) + " and " + to_string(up.shape));
  Tensor y = cx.track(cx.alloc(up.shape, up.dtype));
  gated_op(cx, up.dtype, {act, gate, up, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dgate = cx.grad_target(gate), dup = cx.grad_target(up);
    gated_backward_op(cx, up.dtype, {act, gate, up, dy, dgate, dup});
  });
  return y;
}

Tensor silu_mul(Context& cx, Tensor gate, Tensor up) {
  return gated(cx, gate, up, Activation::silu);
}

STRATA_OP_HELP("activation", R"(y = act(x), elementwise, by name
  Tensor activation(Context&, Tensor x, Activation);     Activation activation_of(name, place);
  Tensor relu | relu2 | silu | gelu | gelu_tanh | sigmoid | tanh | softplus | exp (Context&, Tensor x);
  x, y  (...)
relu2 = relu(x)^2, gelu = x Phi(x), softplus = log(1 + e^x).
State: none. Gradient: x.
  #include "core/ops/activation.h"
  Tensor h = relu2(cx, linear(cx, x, up_));)")
STRATA_OP_HELP("gated", R"(y = act(gate) * up in one pass
  Tensor gated(Context&, Tensor gate, Tensor up, Activation);   Tensor silu_mul(Context&, gate, up);
  gate, up, y  (...), one shape; slices are welcome
State: none. Gradient: gate and up.
  #include "core/ops/activation.h"
  Tensor h = silu_mul(cx, linear(cx, x, gate_), linear(cx, x, up_));)")

}  // namespace strata
