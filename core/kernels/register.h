// How a kernel file makes its functions known. For kernel files only.
//
//   template <class T> void scale_cpu(const ScaleArgs& a, Stream) { ... a.x.ptr<T>() ... }
//   STRATA_CPU_KERNEL("scale", ScaleArgs, scale_cpu)      // registers <float> and <double>
//
// The file is compiled once per instruction set, so the functions belong in an anonymous namespace:
// two variants of one name would be merged by the linker. The registry keeps the best variant that
// this CPU can run. A second registration of the same (op, device, dtype, instruction set) is an
// error.
#pragma once

#include <typeinfo>

#include "core/contract/context.h"

#ifndef STRATA_ISA
#define STRATA_ISA 0
#endif

namespace strata {

struct KernelEntry {
  const char* op;
  DeviceKind device;
  DType dtype;
  int isa;  // 0 portable, 1 avx2, 2 avx512, 3 native
  KernelFn run;
  const char* args_type;
  size_t args_size;
  const char* file;
};

STRATA_API bool register_kernel(const KernelEntry& entry);

// The first clash of registrations since the last call, as a sentence; "" when there was none.
STRATA_API const char* take_registration_clash();

// Throws Error with a text as printf writes it. Kernel files use it instead of std::string, whose
// inline functions would be compiled for a newer CPU and then shared with everybody.
[[noreturn]] STRATA_API void kernel_error(const char* format, ...)
    __attribute__((format(printf, 1, 2)));
// The same for what a device says, with the kind of error.
[[noreturn]] STRATA_API void device_error(ErrorKind kind, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

template <class Args, void (*Run)(const Args&, Stream)>
void run_kernel(const void* args, Stream stream) {
  Run(*static_cast<const Args*>(args), stream);
}

}  // namespace strata

#define STRATA_UNIQUE_(a, b) a##b
#define STRATA_UNIQUE(a, b) STRATA_UNIQUE_(a, b)

#define STRATA_KERNEL(op, device, dtype, Args, function)                                         \
  static const bool STRATA_UNIQUE(registered_, __COUNTER__) = strata::register_kernel(           \
      {op, device, dtype, STRATA_ISA, &strata::run_kernel<Args, &function>, typeid(Args).name(), \
       sizeof(Args), __FILE__});

#define STRATA_CUDA_KERNEL(op, Args, function)                                           \
  STRATA_KERNEL(op, strata::DeviceKind::cuda, strata::DType::f32, Args, function<float>) \
  STRATA_KERNEL(op, strata::DeviceKind::cuda, strata::DType::f64, Args, function<double>)

// For kernels whose T may be bf16 and f16 (core/kernels/half.cuh).
#define STRATA_CUDA_HALF_KERNEL(op, Args, function)                                              \
  STRATA_KERNEL(op, strata::DeviceKind::cuda, strata::DType::bf16, Args, function<strata::bf16>) \
  STRATA_KERNEL(op, strata::DeviceKind::cuda, strata::DType::f16, Args, function<strata::f16>)

// For kernels that inference does not need: f16 does not train.
#define STRATA_CUDA_BF16_KERNEL(op, Args, function) \
  STRATA_KERNEL(op, strata::DeviceKind::cuda, strata::DType::bf16, Args, function<strata::bf16>)

#define STRATA_CPU_KERNEL(op, Args, function)                                           \
  STRATA_KERNEL(op, strata::DeviceKind::cpu, strata::DType::f32, Args, function<float>) \
  STRATA_KERNEL(op, strata::DeviceKind::cpu, strata::DType::f64, Args, function<double>)
