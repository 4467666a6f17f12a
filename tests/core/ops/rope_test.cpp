#include "core/ops/rope.h"

#include "tests/core/ops/golden.h"

using namespace strata;
using namespace strata::test;

namespace {

Tensor some_positions(Context& cx, int64_t batch, int64_t seq_len) {
  Tensor p = cx.alloc({batch, seq_len}, DType::i32);
  for (int64_t i = 0; i < p.numel() && !cx.planning(); ++i)
    p.ptr<int32_t>()[i] = int32_t(i * i % 1000);
  return p;
}

}  // namespace

TEST_CASE("rope: gradients, whole and partial") {
  for (int64_t rotary : {0, 2, 6})
    gradcheck({{2, 5, 16}}, [&](Context& cx, Inputs& in) {
      return rope(cx, in[0], some_positions(cx, 2, 5), {.head_dim = 8, .rotary_dim = rotary});
    });
}

TEST_CASE("golden rope") {
  const Golden golden("rope");
  const auto place = golden.values("positions");
  const auto check = [&](const std::string& prefix, const RopeOptions& o) {
    const auto f = rope_inverse_frequencies(o);
    CHECK(difference(f, golden.values(prefix + "inv_freq")) < 1e-15);
    golden.check(prefix, {"x"}, [&](Context& cx, Inputs& in) {
      Tensor p = cx.alloc({2, 9}, DType::i32);
      for (int64_t i = 0; i < 18; ++i) p.ptr<int32_t>()[i] = int32_t(place[size_t(i)]);
      const Tensor y = rope(cx, cx.reshape(in[0], {2, 9, 48}), p, o);
      return cx.reshape(y, {2, 9, 3, 16});
    });
  };
  check("full.", {.head_dim = 16});
  check("theta.", {.head_dim = 16, .theta = 500000});
  check("half.", {.head_dim = 16, .rotary_dim = 8});
  check("quarter.", {.head_dim = 16, .rotary_dim = 4, .theta = 30000});
  check("llama3.", {.head_dim = 16, .factor = 8, .original_max_position = 32});
}

TEST_CASE("rope angles are right at large positions") {
  Bench b(DType::f64);
  const Tensor p = b.ints({1, 6}, {0, 1, 4095, 65537, 1000003, 2147483647});
  const Tensor x = b.tensor({1, 6, 2}, {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0});
  const Tensor y = rope(b.cx, x, p, {.head_dim = 2});
  for (int t = 0; t < 6; ++t) {
    const double angle = p.ptr<int32_t>()[t], tolerance = 1e-15 + angle * 3e-16;
    CHECK(std::abs(y.row<double>(t)[0] - std::cos(angle)) <= tolerance);
    CHECK(std::abs(y.row<double>(t)[1] - std::sin(angle)) <= tolerance);
  }
}

TEST_CASE("rope: wrong shapes are named") {
  Bench b(DType::f32);
  const Tensor x = b.random({1, 4, 16}), p = b.ints({1, 4}, {0, 1, 2, 3});
  CHECK_THROWS_WITH_AS(rope(b.cx, x, p, {.head_dim = 6}), doctest::Contains("head_dim = 6"), Error);
  CHECK_THROWS_WITH_AS(rope(b.cx, x, p, {.head_dim = 8, .rotary_dim = 3}),
                       doctest::Contains("rotary_dim must be even"), Error);
  CHECK_THROWS_WITH_AS(rope(b.cx, x, b.ints({1, 3}, {0, 1, 2}), {.head_dim = 8}),
                       doctest::Contains("one for each of the 4 tokens"), Error);
}
