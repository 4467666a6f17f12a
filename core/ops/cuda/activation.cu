#include "core/ops/cuda/activation.cuh"

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T, Activation A>
struct Activate {
  Tensor x, y;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<Accum<T>, V> p = load_accum<T, V>(x, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = act_of<A, is_half<T>>(p[i]);
    put_accum<T>(y, r, c, p, false);
  }
};

template <class T, Activation A>
struct ActivateBackward {
  Tensor x, dy, dx;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<Accum<T>, V> p = load_accum<T, V>(x, r, c);
    Pack<Accum<T>, V> g = load_accum<T, V>(dy, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] *= act_slope<A, is_half<T>>(p[i]);
    put_accum<T>(dx, r, c, g, accumulate);
  }
};

template <class T, Activation A>
struct Gate {
  Tensor gate, up, y;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<Accum<T>, V> g = load_accum<T, V>(gate, r, c);
    Pack<Accum<T>, V> p = load_accum<T, V>(up, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] *= act_of<A, is_half<T>>(g[i]);
    put_accum<T>(y, r, c, p, false);
  }
};

template <class T, Activation A>
struct GateBackward {
  Tensor gate, up, dy;
  GradTarget dgate, dup;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<Accum<T>, V> g = load_accum<T, V>(gate, r, c), d = load_accum<T, V>(dy, r, c);
    if (dgate.wanted) {
      Pack<Accum<T>, V> p = load_accum<T, V>(up, r, c);
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] *= d[i] * act_slope<A, is_half<T>>(g[i]);
      put_accum<T>(dgate.grad, r, c, p, dgate.accumulate);
    }
    if (dup.wanted) {
      Pack<Accum<T>, V> p = d;
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] *= act_of<A, is_half<T>>(g[i]);
      put_accum<T>(dup.grad, r, c, p, dup.accumulate);
    }
  }
};

template <class T>
void activation_cuda(const ActivationArgs& a, Stream s) {
  expect_read<T>("activation", {&a.x, &a.y});
  with_activation(a.act, [&](auto act) {
    each<T>("activation", s, a.x.rows(), a.x.cols(), {&a.x, &a.y},
            Activate<T, decltype(act)::value>{a.x, a.y});
  });
}

template <class T>
void activation_backward_cuda(const ActivationBackwardArgs& a, Stream s) {
  expect_read<T>("activation_backward", {&a.x, &a.dy});
  expect_either<T>("activation_backward", {&a.dx.grad});
  with_activation(a.act, [&](auto act) {
    each<T>("activation_backward", s, a.x.rows(), a.x.cols(), {&a.x, &a.dy, &a.dx.grad},
            ActivateBackward<T, decltype(act)::value>{a.x, a.dy, a.dx.grad, a.dx.accumulate});
  });
}

template <class T>
void gated_cuda(const GatedArgs& a, Stream s) {
  expect_read<T>("gated", {&a.gate, &a.up, &a.y});
  with_activation(a.act, [&](auto act) {
    each<T>("gated", s, a.up.rows(), a.up.cols(), {&a.gate, &a.up, &a.y},
            Gate<T, decltype(act)::value>{a.gate, a.up, a.y});
  });
}

template <class T>
void gated_backward_cuda(const GatedBackwardArgs& a, Stream s) {
  expect_read<T>("gated_backward", {&a.gate, &a.up, &a.dy});
  expect_either<T>("gated_backward", {&a.dgate.grad, &a.dup.grad});
  const Tensor& dgate = a.dgate.wanted ? a.dgate.grad : a.gate;
  const Tensor& dup = a.dup.wanted ? a.dup.grad : a.up;
  with_activation(a.act, [&](auto act) {
    each<T>("gated_backward", s, a.up.rows(), a.up.cols(), {&a.gate, &a.up, &a.dy, &dgate, &dup},
            GateBackward<T, decltype(act)::value>{a.gate, a.up, a.dy, a.dgate, a.dup});
  });
}

}  // namespace

STRATA_CUDA_KERNEL("activation", ActivationArgs, activation_cuda)
STRATA_CUDA_HALF_KERNEL("activation", ActivationArgs, activation_cuda)
STRATA_CUDA_KERNEL("activation_backward", ActivationBackwardArgs, activation_backward_cuda)
STRATA_CUDA_BF16_KERNEL("activation_backward", ActivationBackwardArgs, activation_backward_cuda)
STRATA_CUDA_KERNEL("gated", GatedArgs, gated_cuda)
STRATA_CUDA_HALF_KERNEL("gated", GatedArgs, gated_cuda)
STRATA_CUDA_KERNEL("gated_backward", GatedBackwardArgs, gated_backward_cuda)
STRATA_CUDA_BF16_KERNEL("gated_backward", GatedBackwardArgs, gated_backward_cuda)

}  // namespace strata
