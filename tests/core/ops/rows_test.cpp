// softmax, split, concat, reshape, gather, scatter_add.
#include "core/ops/gather.h"
#include "core/ops/shape.h"
#include "core/ops/softmax.h"
#include "tests/core/ops/gradcheck.h"

using namespace strata;
using namespace strata::test;

TEST_CASE("softmax: gradients, and rows sum to one at extreme values") {
  for (int64_t d : {1, 5, 67})
    gradcheck({{2, 3, d}}, [](Context& cx, Inputs& in) { return softmax(cx, in[0], 1.5); });
  Bench b(DType::f32);
  const Tensor y = softmax(b.cx, b.tensor({2, 3}, {1e4, 1e4, -1e30, -200, -300, -1e30}));
  CHECK(get(y, 0) == 0.5);
  CHECK(get(y, 2) == 0);
  CHECK(get(y, 3) == doctest::Approx(1));
}

TEST_CASE("split, concat and reshape: values and gradients") {
  gradcheck({{2, 3, 7}, {2, 3, 4}}, [](Context& cx, Inputs& in) {
    auto parts = split(cx, in[0], {2, 5});
    return concat(cx, {parts[1], in[1], parts[0], parts[1]});
  });
  gradcheck({{2, 3, 8}}, [](Context& cx, Inputs& in) {
    return softmax(cx, reshape(cx, in[0], {6, 2, 4}));  // a copy where the input is a slice
  });
  Bench b(DType::f64);
  const Tensor x = b.random({2, 5});
  const auto parts = split(b.cx, x, {2, 3});
  CHECK(parts[1].data == x.ptr<double>() + 2);
  const Tensor y = concat(b.cx, {parts[1], parts[0]});
  CHECK(get(y, 5) == get(x, 7));
  CHECK_THROWS_WITH_AS(split(b.cx, x, {2, 2}),
                       doctest::Contains("2 + 2 = 4 is not the last axis of (2, 5)"), Error);
  CHECK_THROWS_AS(concat(b.cx, {x, b.random({3, 5})}), Error);
}

TEST_CASE("gather and scatter_add: values, repeated and absent rows, gradients") {
  const std::vector<int32_t> rows = {3, 0, 3, -1, 1, 3};
  auto index = [&](Context& cx) {
    Tensor t = cx.alloc({2, 3}, DType::i32);
    if (!cx.planning())
      for (int i = 0; i < 6; ++i) t.ptr<int32_t>()[i] = rows[size_t(i)];
    return t;
  };
  gradcheck({{5, 67}}, [&](Context& cx, Inputs& in) { return gather(cx, in[0], index(cx)); });
  gradcheck({{6, 67}},
            [&](Context& cx, Inputs& in) { return scatter_add(cx, in[0], index(cx), 5); });
  Bench b(DType::f64);
  const Tensor x = b.random({6, 2});
  const Tensor y = scatter_add(b.cx, x, index(b.cx), 4);
  CHECK(get(y, 7) == get(x, 1) + get(x, 5) + get(x, 11));
  CHECK(get(y, 4) == 0);
  const Tensor g = gather(b.cx, x, index(b.cx));
  CHECK(g.shape == Shape{2, 3, 2});
  CHECK(get(g, 6) == 0);
  CHECK(get(g, 8) == get(x, 2));
  CHECK_THROWS_WITH_AS(gather(b.cx, b.random({3, 2}), index(b.cx)),
                       doctest::Contains("index 3 at place 0 is outside of [0, 3)"), Error);
}
