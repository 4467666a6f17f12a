#include "core/contract/tensor.h"

namespace strata {

const char* name_of(DType type) {
  constexpr const char* kNames[] = {"f32", "f64", "bf16", "f16", "f8_e4m3",
                                    "i64", "i32", "i8",   "u8",  "bool"};
  return kNames[int(type)];
}

const char* name_of(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int i = 0; i < shape.rank; ++i) text += (i ? ", " : "") + std::to_string(shape.dim[i]);
  return text + (shape.rank == 1 ? ",)" : ")");
}

Tensor view_of(void* data, const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.data = data;
  t.shape = shape;
  t.pitch = shape.cols();
  t.dtype = dtype;
  t.device = device;
  t.present = true;
  return t;
}

}  // namespace strata
