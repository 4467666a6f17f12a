#include "core/ops/tally.h"

#include <doctest/doctest.h>

#include "core/tensor/memory.h"

using namespace strata;

TEST_CASE("tally adds numbers of any type, weighted, to float64 sums") {
  Memory memory{Device{}, 1024, 1024};
  Context cx(memory, DType::f32);
  double sums[2] = {1, 2}, factor = 0.5;
  float floats[2] = {3, 4};
  int64_t whole[2] = {10, 20};
  const Tensor sum = view_of(sums, {2}, DType::f64);
  tally(cx, view_of(floats, {2}, DType::f32), sum);
  CHECK(sums[0] == 4);
  CHECK(sums[1] == 6);
  tally(cx, view_of(whole, {2}, DType::i64), sum, 3, view_of(&factor, {1}, DType::f64));
  CHECK(sums[0] == 4 + 15);
  CHECK(sums[1] == 6 + 30);
  CHECK_THROWS_AS(tally(cx, view_of(floats, {1}, DType::f32), sum), Error);
}
