// What a tensor is: a plain view of rows of numbers on a device. It owns nothing; the host's arenas
// do. Everything here is inline and trivial, so that kernel files may include it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/contract/error.h"

#ifdef __CUDACC__  // kernels read views too
#define STRATA_INLINE __host__ __device__ __forceinline__
#else
#define STRATA_INLINE [[gnu::always_inline]] inline
#endif

namespace strata {

enum class DType : uint8_t { f32, f64, bf16, f16, f8_e4m3, i64, i32, i8, u8, boolean };
enum class DeviceKind : uint8_t { cpu, cuda };

constexpr int kDeviceKinds = 2;
constexpr int kDTypes = 10;
constexpr int kMaxRank = 6;

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

constexpr size_t size_of(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    default:
      return 1;
  }
}

STRATA_API const char* name_of(DType type);       // "f32", "bf16", ...
STRATA_API const char* name_of(DeviceKind kind);  // "cpu", "cuda"

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<int8_t>() {
  return DType::i8;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}

// The extents of a tensor, outermost first. A scalar has rank 0.
struct Shape {
  int rank = 0;
  int64_t dim[kMaxRank] = {};

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims) dim[rank++] = d;
  }
  // Axis i; negative counts from the last.
  STRATA_INLINE int64_t operator[](int i) const { return dim[i < 0 ? rank + i : i]; }
  STRATA_INLINE int64_t& operator[](int i) { return dim[i < 0 ? rank + i : i]; }
  STRATA_INLINE int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  STRATA_INLINE int64_t cols() const { return rank ? dim[rank - 1] : 1; }
  STRATA_INLINE int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= dim[i];
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dim[i] != o.dim[i]) return false;
    return true;
  }
};

STRATA_API std::string to_string(const Shape& shape);  // "(2, 7, 2048)"

struct ParamSlot;

// A view: all axes but the last enumerate rows; rows lie `pitch` elements apart, so that a slice of
// the last axis is a view too. `var` and `param` say whose gradient this is (see Context).
struct Tensor {
  void* data = nullptr;
  Shape shape;
  int64_t pitch = 0;
  DType dtype = DType::f32;
  Device device;
  bool present = false;              // false: "no tensor" (an absent bias, an unset boundary)
  int32_t var = -1;                  // tape variable, -1: a constant
  const ParamSlot* param = nullptr;  // set for parameters

  STRATA_INLINE explicit operator bool() const { return present; }
  template <class T>
  STRATA_INLINE T* ptr() const {
    return static_cast<T*>(data);
  }
  template <class T>
  STRATA_INLINE T* row(int64_t r) const {
    return static_cast<T*>(data) + r * pitch;
  }
  STRATA_INLINE int64_t rows() const { return shape.rows(); }
  STRATA_INLINE int64_t cols() const { return shape.cols(); }
  STRATA_INLINE int64_t numel() const { return shape.numel(); }
  STRATA_INLINE size_t bytes() const { return size_t(numel()) * size_of(dtype); }
  STRATA_INLINE bool contiguous() const { return pitch == cols() || rows() <= 1; }
};

// A view of memory that somebody else owns, rows packed.
STRATA_API Tensor view_of(void* data, const Shape& shape, DType dtype, Device device = {});

// One entry of a sequence's fixed state, for the rows of a batch: row b lies at
// base + slots[b] * slot_bytes. Absent (base == nullptr) in training: start from zero, keep
// nothing.
struct StateRef {
  void* base = nullptr;
  int64_t slot_bytes = 0;
  const int32_t* slots = nullptr;  // (batch,) on the device

  STRATA_INLINE explicit operator bool() const { return slots != nullptr; }
  template <class T>
  STRATA_INLINE T* row(int64_t b) const {
    return reinterpret_cast<T*>(static_cast<char*>(base) + int64_t{slots[b]} * slot_bytes);
  }
};

constexpr int64_t kPageTokens = 64;

// One per-token entry of a batch of sequences, in pages of 64 tokens. Token t of row b lies at
// base + table[b * table_pitch + t / 64] * page_bytes + (t % 64) * token_bytes. A table entry of -1
// is a page that has left the window.
struct PagesRef {
  void* base = nullptr;
  int64_t page_bytes = 0;
  int64_t token_bytes = 0;
  const int32_t* table = nullptr;  // (batch, table_pitch) on the device
  int64_t table_pitch = 0;
  const int32_t* lengths = nullptr;  // (batch,) tokens held before this pass

  STRATA_INLINE explicit operator bool() const { return table != nullptr; }
  template <class T>
  STRATA_INLINE T* token(int64_t b, int64_t t) const {
    const int64_t page = table[b * table_pitch + t / kPageTokens];
    return reinterpret_cast<T*>(static_cast<char*>(base) + page * page_bytes +
                                (t % kPageTokens) * token_bytes);
  }
};

}  // namespace strata
