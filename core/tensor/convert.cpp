#include "core/tensor/convert.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "core/tensor/device.h"

namespace strata {

namespace {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

double widen(double x) { return x; }
double widen(float x) { return x; }
double widen(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
double widen(F16 x) {
  const int exponent = x.bits >> 10 & 31;
  const int mantissa = x.bits & 1023;
  const double magnitude = exponent == 31  ? (mantissa ? std::numeric_limits<double>::quiet_NaN()
                                                       : std::numeric_limits<double>::infinity())
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(mantissa + 1024, exponent - 25);
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

void narrow(double x, double& to) { to = x; }
void narrow(double x, float& to) { to = static_cast<float>(x); }
void narrow(double x, Bf16& to) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  to.bits = is_nan ? static_cast<uint16_t>(bits >> 16 | 0x40)
                   : static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
void narrow(double x, F16& to) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double magnitude = std::fabs(x);
  if (std::isnan(x)) {
    to.bits = sign | 0x7E00;
  } else if (magnitude >= 65520) {  // half a step above the largest finite value
    to.bits = sign | 0x7C00;
  } else if (magnitude < std::ldexp(1.0, -14)) {  // subnormal: multiples of 2^-24
    to.bits = static_cast<uint16_t>(
        sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 24))));
  } else {
    const int exponent = std::ilogb(magnitude);
    const auto steps = static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
    // steps is in [1024, 2048]; 2048 carries into the exponent by itself.
    to.bits = static_cast<uint16_t>(sign | (((exponent + 14) << 10) + steps));
  }
}

template <class From, class To>
void convert(const void* from, void* to, size_t count) {
  const auto* source = static_cast<const From*>(from);
  auto* target = static_cast<To*>(to);
  for (size_t i = 0; i < count; ++i) narrow(widen(source[i]), target[i]);
}

template <class From>
bool convert_to(const void* from, void* to, DType type, size_t count) {
  switch (type) {
    case DType::f64:
      return convert<From, double>(from, to, count), true;
    case DType::f32:
      return convert<From, float>(from, to, count), true;
    case DType::bf16:
      return convert<From, Bf16>(from, to, count), true;
    case DType::f16:
      return convert<From, F16>(from, to, count), true;
    default:
      return false;
  }
}

}  // namespace

void convert_numbers(const void* from, DType from_type, void* to, DType to_type, size_t count) {
  if (count == 0) return;
  if (from_type == to_type) {
    std::memcpy(to, from, count * size_of(from_type));
    return;
  }
  bool done = false;
  switch (from_type) {
    case DType::f64:
      done = convert_to<double>(from, to, to_type, count);
      break;
    case DType::f32:
      done = convert_to<float>(from, to, to_type, count);
      break;
    case DType::bf16:
      done = convert_to<Bf16>(from, to, to_type, count);
      break;
    case DType::f16:
      done = convert_to<F16>(from, to, to_type, count);
      break;
    default:
      break;
  }
  if (!done) {
    throw Error(std::string("numbers of type ") + name_of(from_type) + " cannot become " +
                name_of(to_type));
  }
}

template <class T>
static void append(const Tensor& tensor, std::vector<double>& out) {
  for (int64_t r = 0; r < tensor.rows(); ++r) {
    const T* row = tensor.row<T>(r);
    out.insert(out.end(), row, row + tensor.cols());
  }
}

std::vector<double> numbers_of(const Tensor& on_device) {
  const HostCopy copy(on_device);
  const Tensor& tensor = *copy;
  std::vector<double> out;
  out.reserve(size_t(tensor.numel()));
  switch (tensor.dtype) {
    case DType::f64:
      append<double>(tensor, out);
      break;
    case DType::i32:
      append<int32_t>(tensor, out);
      break;
    case DType::i64:
      append<int64_t>(tensor, out);
      break;
    default:
      out.resize(size_t(tensor.numel()));
      for (int64_t r = 0; r < tensor.rows(); ++r)
        convert_numbers(static_cast<const char*>(tensor.data) +
                            r * tensor.pitch * int64_t(size_of(tensor.dtype)),
                        tensor.dtype, out.data() + r * tensor.cols(), DType::f64,
                        size_t(tensor.cols()));
  }
  return out;
}

}  // namespace strata
