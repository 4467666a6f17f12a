#include "core/ops/cuda/activation.cuh"

#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

template <class T, Activation A>
struct Activate {
  Tensor x, y;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    Pack<T, V> p = load<T, V>(x, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] = act_of<A>(p[i]);
    store(y, r, c, p);
  }
};

template <class T, Activation A>
struct ActivateBackward {
  Tensor x, dy, dx;
  bool accumulate;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<T, V> p = load<T, V>(x, r, c);
    Pack<T, V> g = load<T, V>(dy, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] *= act_slope<A>(p[i]);
    put_pack(dx, r, c, g, accumulate);
  }
};

template <class T, Activation A>
struct Gate {
  Tensor gate, up, y;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<T, V> g = load<T, V>(gate, r, c);
    Pack<T, V> p = load<T, V>(up, r, c);
#pragma unroll
    for (int i = 0; i < V; ++i) p[i] *= act_of<A>(g[i]);
    store(y, r, c, p);
  }
};

template <class T, Activation A>
struct GateBackward {
  Tensor gate, up, dy;
  GradTarget dgate, dup;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    const Pack<T, V> g = load<T, V>(gate, r, c), d = load<T, V>(dy, r, c);
    if (dgate.wanted) {
      Pack<T, V> p = load<T, V>(up, r, c);
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] *= d[i] * act_slope<A>(g[i]);
      put_pack(dgate.grad, r, c, p, dgate.accumulate);
    }
    if (dup.wanted) {
      Pack<T, V> p = d;
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] *= act_of<A>(g[i]);
      put_pack(dup.grad, r, c, p, dup.accumulate);
    }
  }
};

template <class T>
void activation_cuda(const ActivationArgs& a, Stream s) {
  with_activation(a.act, [&](auto act) {
    each<T>("activation", s, a.x.rows(), a.x.cols(), {&a.x, &a.y},
            Activate<T, decltype(act)::value>{a.x, a.y});
  });
}

template <class T>
void activation_backward_cuda(const ActivationBackwardArgs& a, Stream s) {
  with_activation(a.act, [&](auto act) {
    each<T>("activation_backward", s, a.x.rows(), a.x.cols(), {&a.x, &a.dy, &a.dx.grad},
            ActivateBackward<T, decltype(act)::value>{a.x, a.dy, a.dx.grad, a.dx.accumulate});
  });
}

template <class T>
void gated_cuda(const GatedArgs& a, Stream s) {
  with_activation(a.act, [&](auto act) {
    each<T>("gated", s, a.up.rows(), a.up.cols(), {&a.gate, &a.up, &a.y},
            Gate<T, decltype(act)::value>{a.gate, a.up, a.y});
  });
}

template <class T>
void gated_backward_cuda(const GatedBackwardArgs& a, Stream s) {
  const Tensor& dgate = a.dgate.wanted ? a.dgate.grad : a.gate;
  const Tensor& dup = a.dup.wanted ? a.dup.grad : a.up;
  with_activation(a.act, [&](auto act) {
    each<T>("gated_backward", s, a.up.rows(), a.up.cols(), {&a.gate, &a.up, &a.dy, &dgate, &dup},
            GateBackward<T, decltype(act)::value>{a.gate, a.up, a.dy, a.dgate, a.dup});
  });
}

}  // namespace

STRATA_CUDA_KERNEL("activation", ActivationArgs, activation_cuda)
STRATA_CUDA_KERNEL("activation_backward", ActivationBackwardArgs, activation_backward_cuda)
STRATA_CUDA_KERNEL("gated", GatedArgs, gated_cuda)
STRATA_CUDA_KERNEL("gated_backward", GatedBackwardArgs, gated_backward_cuda)

}  // namespace strata
