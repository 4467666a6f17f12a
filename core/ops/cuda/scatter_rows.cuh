// y[index[i]] += x[i] in the order of i, without atomics or memory of its own: the gradient of an
// embedding, and scatter_add.
//
// A block owns some rows of y and a slice of their columns. It walks all indices, collects those of
// its rows in shared memory, sorts them by row (stable, so the order of i stays), and adds up row
// by row in registers. Every row of y is read at most, and written at least, once.
#pragma once

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

constexpr int kScatterRows = 128;    // of y, at most, for one block
constexpr int kScatterSegments = 4;  // a slice is this many times 32 packs wide
constexpr int kScatterScan = 1024;   // indices looked at in one step
constexpr int kScatterRoom = 2048;   // indices collected before they are worked off

struct ScatterArgs {
  Tensor x;              // (m, d)
  const int32_t* index;  // (m,); outside of [0, n): no row
  Tensor y;              // (n, d), T or Accum<T>
  int64_t m;
  int64_t block_rows;  // of y, for one block
  bool accumulate;
};

struct ScatterRoom {
  int32_t source[kScatterRoom], sorted[kScatterRoom];  // rows of x
  int16_t row[kScatterRoom], rank[kScatterRoom];       // row of y in the block; place among its own
  int32_t first[kScatterRows + 1];                     // where a row's part of `sorted` begins
  bool written[kScatterRows];
  int32_t counts[kScatterScan / kWarp];
};

// Appends the indices [begin, begin + kScatterScan) that fall into rows [row0, row0 + rows) to the
// list of n; returns its new length.
__device__ __forceinline__ int scatter_collect(const ScatterArgs& a, int64_t begin, int64_t row0,
                                               int rows, int n, ScatterRoom& room) {
  constexpr int kSteps = kScatterScan / kThreads, kWarps = kThreads / kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int64_t local[kSteps];
  unsigned hits[kSteps];
  bool any = false;
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    const int64_t i = begin + k * kThreads + threadIdx.x;
    local[k] = i < a.m ? a.index[i] - row0 : -1;
  }
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    hits[k] = __ballot_sync(kAllLanes, local[k] >= 0 && local[k] < rows);
    any = any || hits[k];
  }
  if (!__syncthreads_or(any)) return n;
  if (lane == 0) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) room.counts[k * kWarps + warp] = __popc(hits[k]);
  }
  __syncthreads();
  int before = 0, total = 0;  // before: of all earlier steps and warps, for step k
  for (int k = 0; k < kSteps; ++k) {
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before = total;
      total += room.counts[k * kWarps + w];
    }
    if (hits[k] >> lane & 1) {
      const int at = n + before + __popc(hits[k] & ((1u << lane) - 1));
      room.source[at] = int32_t(begin + k * kThreads + threadIdx.x);
      room.row[at] = int16_t(local[k]);
    }
  }
  __syncthreads();
  return n + total;
}

// Sorts the list of n by row.
__device__ __forceinline__ void scatter_sort(int n, int rows, ScatterRoom& room) {
  for (int r = threadIdx.x; r <= rows; r += kThreads) room.first[r] = 0;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    // One warp counts in the order of the list; first[r + 1] holds the count of row r.
    const int lane = threadIdx.x;
    for (int begin = 0; begin < n; begin += kWarp) {
      const bool inside = begin + lane < n;
      const int row = inside ? room.row[begin + lane] : -1;
      const unsigned same = __match_any_sync(kAllLanes, row);
      const int rank = __popc(same & ((1u << lane) - 1));
      if (inside) room.rank[begin + lane] = int16_t(room.first[row + 1] + rank);
      __syncwarp();
      if (inside && rank == 0) room.first[row + 1] += __popc(same);
      __syncwarp();
    }
    int sum = 0;
    for (int begin = 0; begin < rows; begin += kWarp) {
      int x = begin + lane < rows ? room.first[begin + lane + 1] : 0;
      for (int offset = 1; offset < kWarp; offset *= 2) {
        const int other = __shfl_up_sync(kAllLanes, x, offset);
        if (lane >= offset) x += other;
      }
      if (begin + lane < rows) room.first[begin + lane + 1] = sum + x;
      sum += __shfl_sync(kAllLanes, x, kWarp - 1);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kThreads)
    room.sorted[room.first[room.row[i]] + room.rank[i]] = room.source[i];
  __syncthreads();
}

// Adds the sorted list to rows row0 on; a warp takes 32 packs of one row at a time.
template <class T, class Y, int V>
__device__ __forceinline__ void scatter_add_list(const ScatterArgs& a, int64_t row0, int rows,
                                                 int64_t col0, ScatterRoom& room) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int item = warp; item < rows * kScatterSegments; item += kThreads / kWarp) {
    const int row = item / kScatterSegments, segment = item % kScatterSegments;
    const int begin = room.first[row], end = room.first[row + 1];
    const int64_t c = col0 + (int64_t(segment) * kWarp + lane) * V;
    if (begin == end || c >= a.y.cols()) continue;
    Y* y = a.y.row<Y>(row0 + row) + c;
    Pack<Accum<T>, V> sum = {};
    if (a.accumulate || room.written[row]) sum = load_accum<Y, V>(y);
    int i = begin;
    for (; i + 4 <= end; i += 4) {  // four loads under way
      Pack<T, V> p[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) p[k] = load<T, V>(a.x, room.sorted[i + k], c);
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int j = 0; j < V; ++j) sum[j] += wide(p[k][j]);
    }
    for (; i < end; ++i) {
      const Pack<T, V> p = load<T, V>(a.x, room.sorted[i], c);
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] += wide(p[j]);
    }
    store_pack(y, narrow<Y>(sum));
  }
  __syncthreads();
  for (int r = threadIdx.x; r < rows; r += kThreads)
    if (room.first[r + 1] > room.first[r]) room.written[r] = true;
  __syncthreads();
}

template <class T, class Y, int V>
__global__ void __launch_bounds__(kThreads, 4) scatter_rows_kernel(ScatterArgs a) {
  __shared__ ScatterRoom room;
  constexpr int kSlice = kScatterSegments * kWarp * V;
  const int64_t n = a.y.rows(), d = a.y.cols();
  const int64_t slices = (d + kSlice - 1) / kSlice;
  const int64_t units = (n + a.block_rows - 1) / a.block_rows * slices;
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const int64_t row0 = unit / slices * a.block_rows, col0 = unit % slices * kSlice;
    const int rows = int(n - row0 < a.block_rows ? n - row0 : a.block_rows);
    for (int r = threadIdx.x; r < rows; r += kThreads) room.written[r] = false;
    int held = 0;
    for (int64_t begin = 0; begin < a.m; begin += kScatterScan) {
      held = scatter_collect(a, begin, row0, rows, held, room);
      if (held == 0 || (held <= kScatterRoom - kScatterScan && begin + kScatterScan < a.m))
        continue;
      scatter_sort(held, rows, room);
      scatter_add_list<T, Y, V>(a, row0, rows, col0, room);
      held = 0;
    }
    __syncthreads();
    if (!a.accumulate) {
      const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
      for (int r = warp; r < rows; r += kThreads / kWarp) {
        if (room.written[r]) continue;
        for (int64_t c = col0 + lane * V; c < d && c < col0 + kSlice; c += kWarp * V)
          store(a.y, row0 + r, c, Pack<Y, V>{});
      }
    }
    __syncthreads();
  }
}

template <class T, class Y, int V>
void run_scatter(const char* op, ScatterArgs a, Stream stream) {
  constexpr int kSlice = kScatterSegments * kWarp * V;
  const int64_t slices = (a.y.cols() + kSlice - 1) / kSlice;
  // Few rows: fewer of them in a block, so that there are blocks enough for the device.
  a.block_rows = a.y.rows() * slices / 1024;
  if (a.block_rows < 1) a.block_rows = 1;
  if (a.block_rows > kScatterRows) a.block_rows = kScatterRows;
  const int64_t units = (a.y.rows() + a.block_rows - 1) / a.block_rows * slices;
  scatter_rows_kernel<T, Y, V><<<blocks_for(units, 1), kThreads, 0, stream_of(stream)>>>(a);
  check_launch(op);
}

template <class T, class Y>
void scatter_to(const char* op, const ScatterArgs& a, Stream stream) {
  if (a.y.cols() % kPack<T> == 0 && wide_rows<T>(a.x) && wide_rows<T>(a.y))
    run_scatter<T, Y, kPack<T>>(op, a, stream);
  else
    run_scatter<T, Y, 1>(op, a, stream);
}

// x: (m, d), index: (m,) i32, y: (n, d) of T or Accum<T>
template <class T>
void scatter_rows(const char* op, const Tensor& x, const Tensor& index, const Tensor& y,
                  bool accumulate, Stream stream) {
  if (y.numel() == 0) return;
  expect_read<T>(op, {&x});
  expect_either<T>(op, {&y});
  const ScatterArgs a{x, index.ptr<int32_t>(), y, index.numel(), 1, accumulate};
  if (y.dtype == dtype_of<T>())
    scatter_to<T, T>(op, a, stream);
  else
    scatter_to<T, Accum<T>>(op, a, stream);
}

}  // namespace
}  // namespace strata
