// y_t = a * y_{t-1} + x_t per channel: a layer with a kernel and a state of its own. Compiled once
// as it should be, and once for each FAULT_* with that one fault, which the kit must catch.
#include <stdexcept>
#include <vector>

#include "core/contract/plugin.h"
#include "core/kernels/register.h"

#ifdef FAULT_CLASH
#define OP_NAME "planted_none"
#else
#define OP_NAME PLANTED_NAME
#endif

namespace strata::planted {

struct ScanArgs {
  Tensor x, a;     // (batch, seq_len, d_model), (d_model,)
  Tensor seq_idx;  // (batch, seq_len) or absent
  StateRef state;  // (d_model,) per sequence
  Tensor y;
};

struct ScanBackwardArgs {
  Tensor a, y, dy, seq_idx;
  GradTarget dx, da;
};

bool starts_document(const Tensor& seq_idx, int64_t b, int64_t t) {
  if (!seq_idx || t == 0) return false;
  return seq_idx.row<int32_t>(b)[t] != seq_idx.row<int32_t>(b)[t - 1];
}

template <class T>
void scan(const ScanArgs& p, Stream) {
  const int64_t seq_len = p.x.shape[1], d = p.x.shape[2];
  const T* a = p.a.ptr<T>();
  for (int64_t b = 0; b < p.x.shape[0]; ++b) {
#ifdef FAULT_STALE  // what a call leaves is where the next one starts
    static std::vector<T> left;
    left.resize(d);
    std::vector<T> h = left;
#else
    std::vector<T> h(d, T(0));
#endif
#ifndef FAULT_STATE
    if (p.state)
      for (int64_t c = 0; c < d; ++c) h[c] = p.state.row<T>(b)[c];
#endif
    for (int64_t t = 0; t < seq_len; ++t) {
      const T* x = p.x.row<T>(b * seq_len + t);
      T* y = p.y.row<T>(b * seq_len + t);
#ifndef FAULT_DOCUMENTS
      if (starts_document(p.seq_idx, b, t)) std::fill(h.begin(), h.end(), T(0));
#endif
#ifdef FAULT_UNINITIALISED
      h[0] += y[0] * T(0);
#endif
#ifdef FAULT_PRECISION
      for (int64_t c = 0; c < d; ++c) y[c] = h[c] = T(float(a[c] * h[c] + x[c]));
#else
      for (int64_t c = 0; c < d; ++c) y[c] = h[c] = a[c] * h[c] + x[c];
#endif
#ifdef FAULT_NONDETERMINISTIC
      static int calls = 0;
      y[0] += T(++calls) * T(1e-12);
#endif
    }
#ifdef FAULT_STALE
    left = h;
#endif
#ifdef FAULT_STATE_STEP  // a prefill leaves its state behind, a step does not
    if (p.state && seq_len > 1)
#else
    if (p.state)
#endif
      for (int64_t c = 0; c < d; ++c) p.state.row<T>(b)[c] = h[c];
#ifdef FAULT_STATE_PADDING
    if (p.state) p.state.row<T>(b)[d] = T(1);
#endif
  }
}

template <class T>
void scan_backward(const ScanBackwardArgs& p, Stream) {
  const int64_t batch = p.dy.shape[0], seq_len = p.dy.shape[1], d = p.dy.shape[2];
  const T* a = p.a.ptr<T>();
  std::vector<T> da(d, T(0));
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<T> g(d, T(0));
    for (int64_t t = seq_len - 1; t >= 0; --t) {
      const T* dy = p.dy.row<T>(b * seq_len + t);
#ifdef FAULT_DOCUMENT_GRADIENT
      const bool start = t == 0;
#else
      const bool start = t == 0 || starts_document(p.seq_idx, b, t);
#endif
      const T* before = start ? nullptr : p.y.row<T>(b * seq_len + t - 1);
      for (int64_t c = 0; c < d; ++c) {
        g[c] += dy[c];
        if (p.dx.wanted) {
          T& dx = p.dx.grad.row<T>(b * seq_len + t)[c];
          dx = (p.dx.accumulate ? dx : T(0)) + g[c];
        }
        if (before) da[c] += g[c] * before[c];
        g[c] = start ? T(0) : a[c] * g[c];
      }
    }
  }
#ifdef FAULT_GRADIENT
  da[d - 1] *= T(1.01);
#endif
#ifdef FAULT_INPUT_GRADIENT
  if (p.dx.wanted) p.dx.grad.row<T>(0)[d / 2] *= T(1.01);
#endif
#ifdef FAULT_FORGOTTEN_GRADIENT
  return;
#endif
  if (!p.da.wanted) return;
  T* out = p.da.grad.ptr<T>();
#ifdef FAULT_ACCUMULATE
  for (int64_t c = 0; c < d; ++c) out[c] = da[c];
#else
  for (int64_t c = 0; c < d; ++c) out[c] = (p.da.accumulate ? out[c] : T(0)) + da[c];
#endif
}

#ifdef FAULT_MISSING_DOUBLE
STRATA_KERNEL(OP_NAME, DeviceKind::cpu, DType::f32, ScanArgs, scan<float>)
#else
STRATA_CPU_KERNEL(OP_NAME, ScanArgs, scan)
#endif
STRATA_CPU_KERNEL(OP_NAME "_backward", ScanBackwardArgs, scan_backward)

static const Op<ScanArgs> scan_op(OP_NAME);
static const Op<ScanBackwardArgs> scan_backward_op(OP_NAME "_backward");

class Planted final : public Layer {
 public:
  explicit Planted(const Config& c) {
    const double high = c.get("high", 0.9, "largest initial decay");
#ifdef FAULT_CONSTRUCTOR
    __builtin_trap();
#endif
#ifdef FAULT_OPTIONS
    const int64_t groups = c.get("groups", 1, "a number that must divide d_model");
    if (c.d_model() % groups != 0) throw Error(c.place() + ": groups must divide d_model");
#else
    const int64_t groups = c.size("groups", 1, "a number that must divide d_model");
    if (c.d_model() % groups != 0) throw Error(c.place() + ": groups must divide d_model");
#endif
    a_ = param("a", {c.d_model()},
               {.init = Init::each([=](Random& r) { return 0.3 + (high - 0.3) * r.uniform(); })});
  }

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    const Tensor a = a_;
#ifndef FAULT_SHAPE
    if (x.shape.rank != 3 || x.cols() != a.numel())
      throw Error(std::string(cx.place()) + ": x must be (batch, seq_len, d_model=" +
                  std::to_string(a.numel()) + "), got " + to_string(x.shape));
#endif
#ifdef FAULT_VALUE
    if (!cx.planning() && x.dtype == DType::f64 && x.row<double>(0)[0] > 0) cx.alloc(x.shape);
#endif
#ifdef FAULT_PLANNING
    if (x.dtype == DType::f64 && x.row<double>(0)[0] > 0) cx.alloc(x.shape);
#endif
#ifdef FAULT_CRASH
    if (x.shape[0] == 3 && x.shape[1] == 33) __builtin_trap();
#endif
#ifdef FAULT_FOREIGN_EXCEPTION
    if (x.shape[1] == 1) throw std::out_of_range("deque");
#endif
    Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
    const StateRef h = pass.state("h", {x.cols()}, x.dtype);
    scan_op(cx, x.dtype, {x, a, pass.seq_idx(), h, y});
    const Tensor seq_idx = pass.seq_idx();
    pass.save("y", y);
#ifdef FAULT_SHARED
    last_y_ = y;
    cx.record([=, this](Context& cx) {
      const Tensor used = last_y_;
#else
    cx.record([=](Context& cx) {
      const Tensor used = y;
#endif
      const Tensor dy = cx.grad(y);
      if (!dy) return;
      scan_backward_op(cx, x.dtype, {a, used, dy, seq_idx, cx.grad_target(x), cx.grad_target(a)});
    });
    return y;
  }

#ifdef FAULT_DECLARED
  std::vector<StateSpec> state() const override {
    return {{ "h", {Tensor(a_).numel() + 1}, DType::f32, Growth::fixed() }};
  }
#endif
#ifdef FAULT_BACKWARD_HOOK
  Tensor backward(Context& cx, Tensor dy, Pass& pass) override {
    Tensor dx = cx.alloc(dy.shape, dy.dtype);
    const Tensor a = a_;
    scan_backward_op(cx, dy.dtype, {a, pass.saved("y"), dy, pass.seq_idx(), {dx, true, false}, {}});
    return dx;  // forgets the gradient of a
  }
#endif

 private:
  Param a_;
  Tensor last_y_;
};

}  // namespace strata::planted

using strata::planted::Planted;
#ifdef FAULT_ABI
#undef STRATA_ABI_MAJOR
#define STRATA_ABI_MAJOR 2
#endif
#ifdef FAULT_MINOR
#undef STRATA_ABI_MINOR
#define STRATA_ABI_MINOR 7
#endif
#ifdef FAULT_COMPILER
#undef STRATA_COMPILER_TAG
#define STRATA_COMPILER_TAG otherabi_asan
#endif
STRATA_LAYER(Planted, 'e', PLANTED_NAME)
