// Numbers of the stored floating-point types, converted into each other.
#pragma once

#include <cstddef>
#include <vector>

#include "core/contract/tensor.h"

namespace strata {

// Converts `count` packed numbers of f64, f32, bf16 or f16; to a narrower type by rounding to the
// nearest, ties to even (f64 goes to the 16-bit types through f32). Equal types are copied bit for
// bit. Throws Error naming both types for any other pair.
STRATA_API void convert_numbers(const void* from, DType from_type, void* to, DType to_type,
                                size_t count);

// The numbers of a tensor of any device and numeric type, row after row. Throws Error for types
// that hold no numbers of their own.
STRATA_API std::vector<double> numbers_of(const Tensor& tensor);

}  // namespace strata
