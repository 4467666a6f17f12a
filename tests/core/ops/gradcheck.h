// Checks the backward of anything made of operations against central differences in float64.
//
//   gradcheck({{2, 3, 5}, {7, 5}}, [&](Context& cx, auto& in) { return linear(cx, in[0], in[1],
//   {}); });
//
// The function runs four ways: packed inputs, inputs that are slices of wider tensors, twice before
// one backward (gradients must add up), and in float32 against float64. Each run first plans, then
// gets exactly the planned bytes.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "core/contract/context.h"
#include "core/tensor/device.h"
#include "core/tensor/memory.h"
#include "core/tensor/random.h"
#include "tests/test_device.h"

namespace strata::test {

using Inputs = std::vector<Tensor>;
using Build = std::function<Tensor(Context&, Inputs&)>;

struct GradcheckOptions {
  double step = 1e-6;
  double tolerance = 1e-7;      // absolute, on values of order one
  double f32_tolerance = 2e-4;  // relative to the largest value of a tensor
  bool pitched = true;          // also run on slices
  bool f32 = true;
  std::vector<bool> wanted;                      // inputs to differentiate; empty: all
  std::function<double(size_t, int64_t)> value;  // element i of input n; default: normal draws
};

inline double get(const Tensor& t, int64_t i) {
  const int64_t r = i / t.cols(), c = i % t.cols();
  switch (t.dtype) {
    case DType::f32:
      return t.row<float>(r)[c];
    case DType::f64:
      return t.row<double>(r)[c];
    case DType::i32:
      return t.row<int32_t>(r)[c];
    default:
      return t.row<int8_t>(r)[c];
  }
}

inline void set(const Tensor& t, int64_t i, double v) {
  const int64_t r = i / t.cols(), c = i % t.cols();
  if (t.dtype == DType::f32)
    t.row<float>(r)[c] = float(v);
  else
    t.row<double>(r)[c] = v;
}

// Numbers of a tensor on any device, rows packed.
inline std::vector<double> values(const Tensor& tensor) {
  if (!tensor) return {};
  const HostCopy t(tensor);
  std::vector<double> v(static_cast<size_t>(t->numel()));
  for (size_t i = 0; i < v.size(); ++i) v[i] = get(*t, int64_t(i));
  return v;
}

// Writes a tensor on any device; what lies between its rows is kept.
inline void set_all(const Tensor& t, const std::function<double(int64_t)>& value) {
  if (t.device.kind == DeviceKind::cpu) {
    for (int64_t i = 0; i < t.numel(); ++i) set(t, i, value(i));
    return;
  }
  const size_t row_bytes = size_t(t.cols()) * size_of(t.dtype);
  std::vector<char> bytes(t.bytes());
  const Tensor packed = view_of(bytes.data(), t.shape, t.dtype);
  for (int64_t i = 0; i < t.numel(); ++i) set(packed, i, value(i));
  if (t.contiguous()) return assign_from_host(t, bytes.data());
  for (int64_t r = 0; r < t.rows(); ++r)
    driver_of(t.device).upload(static_cast<char*>(t.data) + r * t.pitch * int64_t(size_of(t.dtype)),
                               bytes.data() + size_t(r) * row_bytes, row_bytes);
}

inline double largest(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::abs(x));
  return m;
}

// Largest difference, NaN counting as infinite.
inline double difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double m = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    m = d <= m ? m : (d == d ? d : INFINITY);
  }
  return m;
}

// A context with memory of its own. Planned: give it the function, it takes exactly what that
// needs.
struct Bench {
  explicit Bench(DType dtype, size_t bytes = size_t{64} << 20)
      : memory(test_device(), bytes, bytes), cx(memory, dtype) {}
  Bench(DType dtype, size_t activations, size_t scratch)
      : memory(test_device(), activations, scratch), cx(memory, dtype) {}
  // A tensor with the given values (all dtypes of kernels), not tracked.
  Tensor tensor(const Shape& shape, const std::vector<double>& v) {
    Tensor t = cx.alloc(shape);
    set_all(t, [&](int64_t i) { return v[size_t(i)]; });
    return t;
  }
  Tensor ints(const Shape& shape, const std::vector<int32_t>& v) {
    Tensor t = cx.alloc(shape, DType::i32);
    assign_from_host(t, v.data());
    return t;
  }
  Tensor random(const Shape& shape, uint64_t seed = 1, double scale = 1) {
    Random draw(seed, 7);
    Tensor t = cx.alloc(shape);
    set_all(t, [&](int64_t) { return scale * draw.normal(); });
    return t;
  }
  Memory memory;
  Context cx;
};

struct GradRun {
  std::vector<double> y;
  std::vector<std::vector<double>> grads;
};

// One forward (and backward when asked) at the given input values.
inline GradRun run_once(const std::vector<Shape>& shapes, const Build& build, DType dtype,
                        const std::vector<std::vector<double>>& in, bool pitched, int calls,
                        bool backward, const GradcheckOptions& o) {
  GradRun out;
  auto walk = [&](Context& cx) {
    cx.set_recording(backward);
    Inputs x;
    for (size_t n = 0; n < shapes.size(); ++n) {
      Shape s = shapes[n];
      const bool slice = pitched && s.rank > 0;
      if (slice) s[-1] += 3;
      Tensor t = cx.alloc(s);
      if (!cx.planning() && slice) set_all(t, [](int64_t) { return 1e3; });
      if (o.wanted.empty() || o.wanted[n]) t = cx.track(t);
      if (slice) t = cx.columns(t, 2, shapes[n].cols());
      if (!cx.planning()) set_all(t, [&](int64_t i) { return in[n][size_t(i)]; });
      x.push_back(t);
    }
    std::vector<Tensor> ys;
    for (int call = 0; call < calls; ++call) ys.push_back(build(cx, x));
    if (!cx.planning()) out.y = values(ys[0]);
    if (!backward) return;
    for (Tensor y : ys) {
      const GradTarget t = cx.grad_target(y);
      REQUIRE_MESSAGE(t.wanted, "the output is not a variable");
      REQUIRE_FALSE(t.accumulate);
      Random draw(99, 3);
      if (!cx.planning()) set_all(t.grad, [&](int64_t) { return draw.normal(); });
    }
    cx.replay(0);
    for (size_t n = 0; n < x.size(); ++n) {
      const Tensor g = cx.grad(x[n]);
      if (cx.planning()) continue;
      out.grads.push_back(g ? values(g) : std::vector<double>(size_t(x[n].numel()), 0.0));
    }
  };
  Memory plan{test_device()};
  Context planned(plan, dtype);
  walk(planned);
  Bench bench(dtype, plan.activations.peak(), plan.scratch.peak());
  // Memory of a fresh arena is zero; a run must not depend on that.
  for (Arena* a : {&bench.memory.activations, &bench.memory.scratch}) {
    const size_t mark = a->mark();
    const std::vector<char> noise(a->capacity() / 64 * 64, 0x7f);
    if (!noise.empty())
      driver_of(test_device()).upload(a->take(noise.size(), ""), noise.data(), noise.size());
    a->release(mark);
  }
  walk(bench.cx);
  return out;
}

inline void gradcheck(const std::vector<Shape>& shapes, const Build& build,
                      const GradcheckOptions& o = {}) {
  std::vector<std::vector<double>> in;
  for (size_t n = 0; n < shapes.size(); ++n) {
    Random draw(5 + n, 11);
    in.emplace_back();
    for (int64_t i = 0; i < shapes[n].numel(); ++i)
      in[n].push_back(o.value ? o.value(n, i) : draw.normal());
  }
  auto run = [&](DType type, bool pitched, int calls, bool backward) {
    return run_once(shapes, build, type, in, pitched, calls, backward, o);
  };
  const GradRun base = run(DType::f64, false, 1, true);
  std::vector<double> cotangent(base.y.size());
  Random draw(99, 3);
  for (double& c : cotangent) c = draw.normal();
  auto loss = [&] {
    const GradRun r = run(DType::f64, false, 1, false);
    double sum = 0;
    for (size_t i = 0; i < r.y.size(); ++i) sum += cotangent[i] * r.y[i];
    return sum;
  };
  for (size_t n = 0; n < shapes.size(); ++n) {
    if (!o.wanted.empty() && !o.wanted[n]) continue;
    INFO("input ", n, " of shape ", to_string(shapes[n]));
    // Every element of small inputs, a spread of large ones.
    const size_t stride = std::max<size_t>(1, in[n].size() / 60);
    for (size_t i = 0; i < in[n].size(); i += stride) {
      const double x = in[n][i];
      in[n][i] = x + o.step;
      const double up = loss();
      in[n][i] = x - o.step;
      const double down = loss();
      in[n][i] = x;
      const double numeric = (up - down) / (2 * o.step);
      INFO("element ", i, ": backward ", base.grads[n][i], ", difference quotient ", numeric);
      CHECK(std::abs(base.grads[n][i] - numeric) <= o.tolerance * (1 + std::abs(numeric)));
    }
  }
  const GradRun twice = run(DType::f64, false, 2, true);
  for (size_t n = 0; n < shapes.size(); ++n) {
    INFO("two calls, input ", n);
    for (size_t i = 0; i < in[n].size(); ++i)
      CHECK(twice.grads[n][i] == doctest::Approx(2 * base.grads[n][i]).epsilon(1e-9));
  }
  if (o.pitched) {
    const GradRun p = run(DType::f64, true, 1, true);
    CHECK(difference(p.y, base.y) <= 1e-11 * (1 + largest(base.y)));
    for (size_t n = 0; n < shapes.size(); ++n) {
      INFO("slices, input ", n);
      CHECK(difference(p.grads[n], base.grads[n]) <= 1e-11 * (1 + largest(base.grads[n])));
    }
  }
  if (o.f32) {
    const GradRun f = run(DType::f32, false, 1, true);
    CHECK(difference(f.y, base.y) <= o.f32_tolerance * (1e-3 + largest(base.y)));
    for (size_t n = 0; n < shapes.size(); ++n) {
      INFO("float32, input ", n);
      CHECK(difference(f.grads[n], base.grads[n]) <=
            o.f32_tolerance * (1e-2 + largest(base.grads[n])));
    }
  }
}

}  // namespace strata::test
