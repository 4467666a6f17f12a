// Kernels that visit every element of (rows, cols) once. A functor says what happens to V elements
// from column c of row r on:
//
//   template <class T> struct Twice {
//     Tensor x, y;  // (..., d)
//     template <int V> __device__ void run(int64_t r, int64_t c) const {
//       Pack<Accum<T>, V> p = load_accum<T, V>(x, r, c);
//       for (int i = 0; i < V; ++i) p[i] *= 2;
//       put_accum<T>(y, r, c, p, false);
//     }
//   };
//   each<T>("twice", stream, rows, d, {&x, &y}, Twice<T>{x, y});
//
// The tensors named are those read or written at (r, c); none has smaller elements than T. When all
// are packed, they are walked as one long row, so that r is 0; when their addresses allow, V
// elements of T are 16 bytes.
#pragma once

#include "core/kernels/device.cuh"
#include "core/kernels/pack.cuh"

namespace strata {
namespace {

template <class T, int V>
__device__ __forceinline__ Pack<T, V> load(const Tensor& x, int64_t r, int64_t c) {
  return load_pack<V>(x.row<T>(r) + c);
}
template <class T, int V>
__device__ __forceinline__ void store(const Tensor& y, int64_t r, int64_t c, const Pack<T, V>& p) {
  store_pack(y.row<T>(r) + c, p);
}

// x in the type that T is computed in.
template <class T, int V>
__device__ __forceinline__ Pack<Accum<T>, V> load_accum(const T* x) {
  return widen(load_pack<V>(x));
}
template <class T, int V>
__device__ __forceinline__ Pack<Accum<T>, V> load_accum(const Tensor& x, int64_t r, int64_t c) {
  return load_accum<T, V>(x.row<T>(r) + c);
}
// y = or += p, rounded once, for a y of T or of Accum<T>, which gradients of parameters are.
template <class T, int V>
__device__ __forceinline__ void put_accum(const Tensor& y, int64_t r, int64_t c,
                                          const Pack<Accum<T>, V>& p, bool accumulate) {
  if (!is_half<T> || y.dtype != dtype_of<T>())
    put_accum<Accum<T>, V>(y.row<Accum<T>>(r) + c, p, accumulate);
  else
    put_accum<T, V>(y.row<T>(r) + c, p, accumulate);
}
// One number, `at` elements from the first.
template <class T>
__device__ __forceinline__ void put_at(const Tensor& y, int64_t at, Accum<T> value,
                                       bool accumulate) {
  if (!is_half<T> || y.dtype != dtype_of<T>())
    put_accum<Accum<T>, 1>(y.ptr<Accum<T>>() + at, {value}, accumulate);
  else
    put_accum<T, 1>(y.ptr<T>() + at, {value}, accumulate);
}
// The number `at` elements from the first of an x of T or of Accum<T>.
template <class T>
__device__ __forceinline__ Accum<T> get_at(const Tensor& x, int64_t at) {
  if (!is_half<T> || x.dtype != dtype_of<T>()) return x.ptr<Accum<T>>()[at];
  return wide(x.ptr<T>()[at]);
}

// Whether every row starts at a multiple of 16 bytes.
template <class T>
inline bool wide_rows(const Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
         (x.rows() <= 1 || x.pitch * int64_t(size_of(x.dtype)) % 16 == 0);
}

// Block (x, y) takes blockDim.x packs of blockDim.y rows.
template <class T, class F>
__global__ void each_kernel(int64_t rows, int64_t cols, bool wide, F f) {
  constexpr int V = kPack<T>;
  const int64_t step = wide ? V : 1;
  for (int64_t r = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.y) * blockDim.y)
    for (int64_t c = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * step; c < cols;
         c += int64_t(gridDim.x) * blockDim.x * step) {
      if (wide && c + V <= cols) {
        f.template run<V>(r, c);
      } else {
        for (int64_t i = c; i < c + step && i < cols; ++i) f.template run<1>(r, i);
      }
    }
}

// With `by_row`, rows are never joined: f needs r.
template <class T, class F>
void each(const char* op, Stream stream, int64_t rows, int64_t cols,
          std::initializer_list<const Tensor*> tensors, const F& f, bool by_row = false) {
  if (rows == 0 || cols == 0) return;
  bool wide = true, packed = !by_row;
  for (const Tensor* t : tensors) {
    wide = wide && wide_rows<T>(*t);
    packed = packed && t->contiguous();
  }
  if (packed) {
    cols *= rows;
    rows = 1;
    wide = true;
    for (const Tensor* t : tensors) wide = wide && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
  }
  const int64_t packs = wide ? (cols + kPack<T> - 1) / kPack<T> : cols;
  int x = kThreads;
  while (x > 1 && x / 2 >= packs) x /= 2;
  const dim3 block(x, kThreads / x);
  const int64_t across = blocks_for(packs, x), down = (rows + block.y - 1) / block.y;
  const dim3 grid(unsigned(across), unsigned(down < 65535 ? down : 65535));
  each_kernel<T><<<grid, block, 0, stream_of(stream)>>>(rows, cols, wide, f);
  check_launch(op);
}

}  // namespace
}  // namespace strata
