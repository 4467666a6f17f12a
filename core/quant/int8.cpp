#include "core/quant/int8.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/tensor/device.h"

namespace strata {

void int8_encode(const float* x, int64_t rows, int64_t cols, int8_t* codes, float* scales) {
  for (int64_t r = 0; r < rows; ++r, x += cols, codes += cols) {
    float most = 0;
    for (int64_t c = 0; c < cols; ++c) {
      if (!std::isfinite(x[c]))
        throw Error("int8: row " + std::to_string(r) + ", column " + std::to_string(c) +
                    " is not finite; such a model cannot be quantized");
      most = std::max(most, std::abs(x[c]));
    }
    scales[r] = most / 127;
    for (int64_t c = 0; c < cols; ++c) {
      // Divided rather than multiplied by 1/scale, which overflows for denormal rows.
      const float code = scales[r] > 0 ? std::nearbyint(x[c] / scales[r]) : 0;
      codes[c] = int8_t(std::clamp(code, -127.0f, 127.0f));
    }
  }
}

void int8_decode(const int8_t* codes, const float* scales, int64_t rows, int64_t cols, float* x) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) x[r * cols + c] = scales[r] * float(codes[r * cols + c]);
}

template <class T>
static Int8Error round_trip(Tensor w) {
  Int8Error error;
  double squares = 0, total = 0;
  const int64_t cols = w.cols();
  std::vector<float> row(static_cast<size_t>(cols));
  std::vector<int8_t> codes(static_cast<size_t>(cols));
  for (int64_t r = 0; r < w.rows(); ++r) {
    T* x = w.row<T>(r);
    std::copy(x, x + cols, row.begin());
    float scale;
    int8_encode(row.data(), 1, cols, codes.data(), &scale);
    int8_decode(codes.data(), &scale, 1, cols, row.data());
    for (int64_t c = 0; c < cols; ++c) {
      const double off = std::abs(double(x[c]) - double(row[c]));
      if (scale > 0) error.worst = std::max(error.worst, off / (0.5 * scale));
      squares += off * off;
      total += double(x[c]) * double(x[c]);
      x[c] = T(row[c]);
    }
  }
  error.rms = total > 0 ? std::sqrt(squares / total) : 0;
  return error;
}

Int8Error int8_round_trip(Tensor weight) {
  if (weight.device.kind != DeviceKind::cpu) {
    const HostCopy copy(weight);
    const Int8Error error = int8_round_trip(*copy);
    assign_from_host(weight, copy->data);
    return error;
  }
  if (weight.dtype == DType::f32) return round_trip<float>(weight);
  if (weight.dtype == DType::f64) return round_trip<double>(weight);
  throw Error(std::string("int8: weights must be f32 or f64, got ") + name_of(weight.dtype));
}

}  // namespace strata
