// What a kernel for T says of tensors in a type that it does not read. All throw Error; an absent
// tensor is as expected.
#pragma once

#include <initializer_list>

#include "core/kernels/half.cuh"
#include "core/kernels/register.h"

namespace strata {
namespace {

// Of T.
template <class T>
void expect_read(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    if (*t && t->dtype != dtype_of<T>())
      kernel_error("%s: %s cannot be mixed with %s", op, name_of(t->dtype), name_of(dtype_of<T>()));
}

// Of T or of Accum<T>.
template <class T>
void expect_either(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    if (*t && t->dtype != dtype_of<Accum<T>>()) expect_read<T>(op, {t});
}

// Of Accum<T>, as parameters of Keep::accum are; `what` names the tensor.
template <class T>
void expect_accum(const char* op, const char* what, const Tensor& x) {
  if (x && x.dtype != dtype_of<Accum<T>>())
    kernel_error("%s: %s must be %s, got %s", op, what, name_of(dtype_of<Accum<T>>()),
                 name_of(x.dtype));
}

}  // namespace
}  // namespace strata
