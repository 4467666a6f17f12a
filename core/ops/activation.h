// Activations, elementwise: y = act(x), and gated: y = act(gate) * up in one pass.
#pragma once

#include <string_view>

#include "core/contract/context.h"

namespace strata {

// relu2 = relu(x)^2 (Primer, arXiv 2109.08668); gelu = x Phi(x); gelu_tanh its tanh approximation
// (arXiv 1606.08415); softplus = log(1 + e^x).
enum class Activation : uint8_t {
  identity,
  relu,
  relu2,
  silu,
  gelu,
  gelu_tanh,
  sigmoid,
  tanh,
  softplus,
  exp
};

// The activation of that name. Throws Error naming `place`, the word and the nearest known one.
STRATA_API Activation activation_of(std::string_view name, std::string_view place);
STRATA_API const char* name_of(Activation act);

struct ActivationArgs {
  Activation act;
  Tensor x, y;  // (..., d)
};

struct ActivationBackwardArgs {
  Activation act;
  Tensor x, dy;
  GradTarget dx;
};

struct GatedArgs {
  Activation act;
  Tensor gate, up, y;  // (..., d)
};

struct GatedBackwardArgs {
  Activation act;
  Tensor gate, up, dy;
  GradTarget dgate, dup;
};

// x: (..., d) -> (..., d).
STRATA_API Tensor activation(Context& cx, Tensor x, Activation act);
STRATA_API Tensor relu(Context& cx, Tensor x);
STRATA_API Tensor relu2(Context& cx, Tensor x);
STRATA_API Tensor silu(Context& cx, Tensor x);
STRATA_API Tensor gelu(Context& cx, Tensor x);
STRATA_API Tensor gelu_tanh(Context& cx, Tensor x);
STRATA_API Tensor sigmoid(Context& cx, Tensor x);
STRATA_API Tensor tanh(Context& cx, Tensor x);
STRATA_API Tensor softplus(Context& cx, Tensor x);
STRATA_API Tensor exp(Context& cx, Tensor x);

// act(gate) * up; both (..., d), and slices are welcome.
STRATA_API Tensor gated(Context& cx, Tensor gate, Tensor up, Activation act);
// silu(gate) * up: the inner part of SwiGLU (arXiv 2002.05202).
STRATA_API Tensor silu_mul(Context& cx, Tensor gate, Tensor up);

}  // namespace strata
