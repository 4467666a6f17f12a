// Tiles of rows that lie sorted by group, where the group sizes are known to the device only.
#pragma once

#include "core/kernels/device.cuh"

namespace strata {
namespace {

struct RowTile {
  int64_t group, begin, rows, row0;  // its group's first row and rows, and the tile's first row
  bool found;
};

// Every group ends in a tile that may not be full; there are no more tiles than rows.
inline int64_t most_row_tiles(int64_t rows, int64_t groups, int64_t height) {
  const int64_t tiles = rows / height + groups;
  return tiles < rows ? tiles : rows;
}

// Every warp counts the tiles of the groups, four groups a lane at a time, until it meets the tile
// it looks for. offsets: (groups + 1,).
__device__ __forceinline__ RowTile find_tile(const int32_t* offsets, int64_t groups, int64_t tile,
                                             int height) {
  constexpr int kPer = 4;
  const int lane = threadIdx.x % kWarp;
  for (int64_t g0 = 0; g0 < groups; g0 += kPer * kWarp) {
    int32_t at[kPer + 1];
#pragma unroll
    for (int i = 0; i <= kPer; ++i) {
      const int64_t g = g0 + lane * kPer + i;
      at[i] = offsets[g < groups ? g : groups];
    }
    int tiles = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) tiles += (at[i + 1] - at[i] + height - 1) / height;
    int last = tiles;  // of this lane's groups and those before them
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const int other = __shfl_up_sync(kAllLanes, last, offset);
      if (lane >= offset) last += other;
    }
    const unsigned behind = __ballot_sync(kAllLanes, last > tile);
    if (behind) {
      const int owner = __ffs(behind) - 1;
      int group = 0, begin = at[0], rows = 0, left = int(tile) - (last - tiles);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {  // the owner steps over its groups before the tile
        const int here = (at[i + 1] - at[i] + height - 1) / height;
        if (group == i) {
          begin = at[i], rows = at[i + 1] - at[i];
          if (left >= here) left -= here, ++group;
        }
      }
      return {g0 + owner * kPer + __shfl_sync(kAllLanes, group, owner),
              __shfl_sync(kAllLanes, begin, owner), __shfl_sync(kAllLanes, rows, owner),
              int64_t(__shfl_sync(kAllLanes, left, owner)) * height, true};
    }
    tile -= __shfl_sync(kAllLanes, last, kWarp - 1);
  }
  return {0, 0, 0, 0, false};
}

}  // namespace
}  // namespace strata
