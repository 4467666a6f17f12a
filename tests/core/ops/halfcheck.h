// Checks an operation in bf16 on the device of the tests against float64 on the CPU, on the same
// numbers: outputs and every gradient. On the CPU, which has no bf16, it checks that the operation
// says so.
//
//   halfcheck({{'x', {2, 9, 16}}, {'w', {24, 16}}}, [](Context& cx, Inputs& in) { ... });
//
// Kinds of input: 'x' an activation, 'w' a parameter of the model's type, 'a' a parameter that
// stays in float32. Gradients of parameters are float32.
#pragma once

#include <deque>
#include <utility>

#include "core/tensor/convert.h"
#include "tests/core/ops/gradcheck.h"

namespace strata::test {

struct HalfInput {
  char kind;
  Shape shape;
  std::function<double(Random&)> draw{};  // default: normal
};

struct HalfOptions {
  double forward = 6e-3, backward = 1.2e-2;  // relative L2
  bool gradients = true;
  DType type = DType::bf16;
};

struct HalfRun {
  std::vector<double> y;
  std::vector<std::vector<double>> grads;
};

inline double l2_distance(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double off = 0, size = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return INFINITY;
    off += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(off / size);
}

inline void write(const Tensor& t, const std::vector<double>& v) {
  std::vector<char> bytes(t.bytes());
  convert_numbers(v.data(), DType::f64, bytes.data(), t.dtype, v.size());
  assign_from_host(t, bytes.data());
}

inline std::vector<double> rounded(const std::vector<double>& v, DType type) {
  std::vector<char> bytes(v.size() * size_of(type));
  std::vector<double> out(v.size());
  convert_numbers(v.data(), DType::f64, bytes.data(), type, v.size());
  convert_numbers(bytes.data(), type, out.data(), DType::f64, v.size());
  return out;
}

inline HalfRun run_half(Device device, DType type, const std::vector<HalfInput>& inputs,
                        const std::vector<std::vector<double>>& values, const Build& build,
                        const HalfOptions& o) {
  Memory memory(device, size_t{256} << 20, size_t{256} << 20);
  Context cx(memory, type);
  cx.set_recording(o.gradients);
  std::deque<ParamSlot> slots;
  Inputs in;
  for (size_t n = 0; n < inputs.size(); ++n) {
    const char kind = inputs[n].kind;
    Tensor t = cx.alloc(inputs[n].shape, kind == 'a' ? cx.accum_dtype() : type);
    write(t, values[n]);
    if (kind == 'x') {
      t = cx.track(t);
    } else {
      ParamSlot& slot = slots.emplace_back();
      slot.shape = t.shape;
      slot.value = t;
      slot.grad = cx.alloc(t.shape, cx.accum_dtype());
      write(slot.grad, std::vector<double>(size_t(t.numel()), 0));
      t.param = slot.value.param = &slot;
    }
    in.push_back(t);
  }
  const Tensor y = build(cx, in);
  HalfRun out{numbers_of(y), {}};
  if (!o.gradients) return out;
  const GradTarget target = cx.grad_target(y);
  REQUIRE(target.wanted);
  std::vector<double> dy(static_cast<size_t>(y.numel()));
  Random draw(99, 3);
  for (double& d : dy) d = draw.normal();
  write(target.grad, rounded(dy, o.type));
  cx.replay(0);
  for (const Tensor& t : in) {
    const Tensor g = t.param ? t.param->grad : cx.grad(t);
    out.grads.push_back(g ? numbers_of(g) : std::vector<double>(size_t(t.numel()), 0));
  }
  return out;
}

inline void halfcheck(const std::vector<HalfInput>& inputs, const Build& build,
                      const HalfOptions& o = {}) {
  std::vector<std::vector<double>> values;
  for (size_t n = 0; n < inputs.size(); ++n) {
    Random draw(5 + n, 11);
    std::vector<double> v;
    for (int64_t i = 0; i < inputs[n].shape.numel(); ++i)
      v.push_back(inputs[n].draw ? inputs[n].draw(draw) : draw.normal());
    values.push_back(rounded(v, inputs[n].kind == 'a' ? DType::f32 : o.type));
  }
  if (test_device().kind == DeviceKind::cpu) {
    CHECK_THROWS_AS(run_half({}, o.type, inputs, values, build, o), MissingKernel);
    return;
  }
  const HalfRun want = run_half({}, DType::f64, inputs, values, build, o);
  const HalfRun got = run_half(test_device(), o.type, inputs, values, build, o);
  CHECK(l2_distance(got.y, want.y) <= o.forward);
  for (size_t n = 0; n < got.grads.size(); ++n) {
    INFO("gradient of input ", n, " of shape ", to_string(inputs[n].shape));
    CHECK(l2_distance(got.grads[n], want.grads[n]) <= o.backward);
  }
  const HalfRun again = run_half(test_device(), o.type, inputs, values, build, o);
  CHECK(again.y == got.y);
  CHECK(again.grads == got.grads);
}

}  // namespace strata::test
