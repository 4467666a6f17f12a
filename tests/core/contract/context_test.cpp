#include "core/contract/context.h"

#include <doctest/doctest.h>

#include "core/ops/fill.h"
#include "core/tensor/memory.h"

using namespace strata;

namespace {

struct Fixture {
  Memory memory{Device{}, 1 << 20, 1 << 20};
  Context cx{memory, DType::f64};
  Fixture() { cx.set_recording(true); }
  void add(Tensor x, double value) {  // pretends to be a backward kernel that adds `value`
    const GradTarget t = cx.grad_target(x);
    REQUIRE(t.wanted);
    for (int64_t r = 0; r < x.rows(); ++r)
      for (int64_t c = 0; c < x.cols(); ++c) {
        double& g = t.grad.row<double>(r)[c];
        g = (t.accumulate ? g : 0) + value;
      }
  }
};

}  // namespace

TEST_CASE("gradients of column views land in their parent, whoever writes first") {
  Fixture f;
  Tensor x = f.cx.track(f.cx.alloc({3, 8}));
  Tensor a = f.cx.columns(x, 0, 3), b = f.cx.columns(x, 3, 2), c = f.cx.columns(b, 1, 1);
  SUBCASE("the parent last") {
    f.add(a, 1);
    f.add(c, 2);
    f.add(b, 4);
    f.add(x, 8);
  }
  SUBCASE("the parent first") {
    f.add(x, 8);
    f.add(b, 4);
    f.add(c, 2);
    f.add(a, 1);
  }
  const Tensor g = f.cx.grad(x);
  const double expected[8] = {9, 9, 9, 12, 14, 8, 8, 8};
  for (int r = 0; r < 3; ++r)
    for (int i = 0; i < 8; ++i) CHECK(g.row<double>(r)[i] == expected[i]);
}

TEST_CASE("what nobody wrote reads as zero, and an untouched variable has no gradient") {
  Fixture f;
  Tensor x = f.cx.track(f.cx.alloc({2, 4}));
  Tensor a = f.cx.columns(x, 1, 2);
  CHECK_FALSE(f.cx.grad(x));
  f.add(a, 3);
  CHECK_FALSE(f.cx.grad(f.cx.columns(x, 0, 1)));
  const Tensor g = f.cx.grad(x);
  CHECK(g.row<double>(1)[0] == 0);
  CHECK(g.row<double>(1)[2] == 3);
}

TEST_CASE("a reshaped view shares its gradient, also a slice of its last axis") {
  Fixture f;
  Tensor x = f.cx.track(f.cx.alloc({2, 6}));
  Tensor heads = f.cx.reshape(x, {2, 3, 2});
  Tensor first = f.cx.columns(heads, 0, 1);
  f.add(first, 1);
  f.add(heads, 2);
  const Tensor g = f.cx.grad(x);
  for (int r = 0; r < 2; ++r)
    for (int i = 0; i < 6; ++i) CHECK(g.row<double>(r)[i] == (i % 2 == 0 ? 3 : 2));
}

TEST_CASE("a slice cannot be reshaped across its gaps") {
  Fixture f;
  Tensor x = f.cx.alloc({2, 6});
  CHECK_THROWS_AS(f.cx.reshape(f.cx.columns(x, 0, 4), {2, 2, 2}), Error);
}

TEST_CASE("planning measures the same peaks as running") {
  auto walk = [](Context& cx) {
    cx.set_recording(true);
    Tensor x = cx.track(cx.alloc({5, 7}));
    const size_t mark = cx.memory().activations.mark();
    cx.alloc({100, 3}, DType::f32);
    cx.memory().activations.release(mark);
    ScratchScope scope(cx);
    cx.scratch({11}, DType::f64);
    (void)x;
  };
  Memory plan{Device{}};
  Context planned(plan, DType::f32);
  CHECK(planned.planning());
  walk(planned);
  Memory memory(Device{}, plan.activations.peak(), plan.scratch.peak());
  Context real(memory, DType::f32);
  walk(real);
  CHECK(memory.activations.peak() == plan.activations.peak());
  CHECK(memory.scratch.peak() == plan.scratch.peak());
  CHECK_THROWS_AS(real.alloc({100000}), Error);
}

TEST_CASE("a missing kernel is named with operation, type and device") {
  Fixture f;
  CHECK_THROWS_WITH_AS(find_kernel("no_such_op", DeviceKind::cpu, DType::f32, "", 0),
                       doctest::Contains("'no_such_op' has no f32 kernel on cpu"), Error);
}
