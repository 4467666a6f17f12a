// Between rows somewhere in memory and a tile that has them in its vector lanes: element d of row i
// lies at tile[d * 64 + i]. For kernel files only (internal linkage: one copy per instruction set).
#pragma once

#include "core/kernels/vec.h"

namespace strata {
namespace {

// tile = factor * rows^T. row(i) is where row i starts; lanes from n up to `lanes` become zero.
template <class T, class Row>
inline void rows_to_lanes(int64_t n, int64_t lanes, int64_t dim, const Row& row, T factor,
                          T* tile) {
  constexpr int kW = kLanes<T>;
  for (int64_t i0 = 0; i0 < lanes; i0 += kW) {
    const T* from[kW];
    for (int i = 0; i < kW; ++i) from[i] = i0 + i < n ? row(i0 + i) : nullptr;
    for (int64_t d = 0; d < dim; d += kW) {
      const int part = dim - d < kW ? int(dim - d) : kW;
      Vec<T> v[kW];
#pragma GCC unroll 16
      for (int i = 0; i < kW; ++i) {
        v[i] = !from[i] ? Vec<T>{} : part == kW ? load(from[i] + d) : load_part(from[i] + d, part);
      }
      transpose<T>(v);
#pragma GCC unroll 16
      for (int j = 0; j < kW; ++j) {
        if (j < part) store<T>(tile + (d + j) * 64 + i0, v[j] * factor);
      }
    }
  }
}

// rows = tile^T, or rows += tile^T.
template <class T, class Row>
inline void lanes_to_rows(int64_t n, int64_t dim, const T* tile, const Row& row, bool add) {
  constexpr int kW = kLanes<T>;
  for (int64_t i0 = 0; i0 < n; i0 += kW) {
    T* to[kW];
    for (int i = 0; i < kW; ++i) to[i] = i0 + i < n ? row(i0 + i) : nullptr;
    for (int64_t d = 0; d < dim; d += kW) {
      const int part = dim - d < kW ? int(dim - d) : kW;
      Vec<T> v[kW];
#pragma GCC unroll 16
      for (int j = 0; j < kW; ++j) v[j] = j < part ? load(tile + (d + j) * 64 + i0) : Vec<T>{};
      transpose<T>(v);
#pragma GCC unroll 16
      for (int i = 0; i < kW; ++i) {
        if (!to[i]) continue;
        T* p = to[i] + d;
        if (part == kW) {
          store<T>(p, add ? load(p) + v[i] : v[i]);
        } else {
          store_part<T>(p, add ? load_part(p, part) + v[i] : v[i], part);
        }
      }
    }
  }
}

}  // namespace
}  // namespace strata
