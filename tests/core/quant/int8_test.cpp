#include "core/quant/int8.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/tensor/random.h"

using namespace strata;

TEST_CASE("int8 rows decode to within half a scale, the largest value exactly") {
  const int64_t rows = 5, cols = 37;
  std::vector<float> w(rows * cols), back(rows * cols), scales(rows);
  std::vector<int8_t> codes(rows * cols);
  Random random(1, 2);
  for (int64_t i = 0; i < rows * cols; ++i)
    w[i] = float(random.normal() * std::pow(10.0, double(i / cols) * 8 - 20));
  for (int64_t c = 0; c < cols; ++c) w[3 * cols + c] = 0;
  int8_encode(w.data(), rows, cols, codes.data(), scales.data());
  int8_decode(codes.data(), scales.data(), rows, cols, back.data());
  for (int64_t r = 0; r < rows; ++r) {
    int most = 0;
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = r * cols + c;
      CHECK(std::abs(w[i] - back[i]) <= 0.5001 * scales[r]);
      most = std::max(most, std::abs(int(codes[i])));
    }
    CHECK(most == (r == 3 ? 0 : 127));
  }
}

TEST_CASE("int8 round trip reports its error and refuses what is not finite") {
  std::vector<double> w = {1.27, -0.5, 0.004, 0, 12.7, 0.05};
  Tensor t = view_of(w.data(), {2, 3}, DType::f64);
  const Int8Error error = int8_round_trip(t);
  CHECK(error.worst <= 1.001);
  CHECK(error.worst > 0.5);
  CHECK(w[0] == doctest::Approx(1.27));
  CHECK(w[2] == 0);  // 0.4 of a code
  w[1] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(int8_round_trip(t), Error);
}
