// Norms of rows that lie in two bytes and on 16: a team of threads, which is a block, takes one
// group of columns and walks over rows. The next rows are on their way into shared memory while it
// computes; every thread reads only what it copied itself, so that nothing but sums needs a
// barrier. Weights and their gradients stay in registers for the whole walk.
//
//   a thread's share of a group: kPacks packs, blockDim.x packs apart
//   blocks: (groups, walkers); walker i takes rows i, i + walkers, ...
#pragma once

#include <type_traits>

#include "core/kernels/mma.cuh"
#include "core/ops/cuda/norm.cuh"

namespace strata {
namespace {

constexpr int kWalkThreads = 256;        // of the widest team
constexpr int kWalkPacks = 5;            // most packs of a thread
constexpr size_t kWalkRoom = 99 * 1024;  // shared memory that a block may have
constexpr int64_t kShortWalk = 3;        // rows of a walker where there are many
constexpr int walk_stages(int inputs) { return inputs == 1 ? 3 : 2; }

template <class T, int kInputs, int kPacks>
class RowWalk {
 public:
  static constexpr int N = kPack<T>, kStages = walk_stages(kInputs);
  using Wide = Pack<Accum<T>, N>;

  // Every input at (row 0, first column of the group).
  __device__ __forceinline__ RowWalk(const Tensor& x, int64_t group) : packs_(int(group / N)) {
    extern __shared__ Pack<uint32_t, 4> walk_room[];
    room_ = walk_room + threadIdx.x;
    at = blockIdx.x * group;
    row = blockIdx.y;
    rows_ = x.rows();
  }
  __device__ __forceinline__ void input(int i, const Tensor& t) {
    from_[i] = t.row<T>(row) + at + threadIdx.x * N;
    step_[i] = t.pitch * gridDim.y;
  }
  // Fills all stages but one.
  __device__ __forceinline__ void start() {
    next_ = row;
#pragma unroll
    for (int s = 0; s + 1 < kStages; ++s) fetch(s);
    last_ = kStages - 1;
    stage_ = 0;
  }
  // Sends for the row kStages - 1 steps ahead and waits for this one.
  __device__ __forceinline__ void arrive() {
    fetch(last_);
    wait_copies<kStages - 1>();
  }
  __device__ __forceinline__ void step() {
    row += gridDim.y;
    last_ = stage_;
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
  }
  __device__ __forceinline__ bool done() const { return row >= rows_; }
  __device__ __forceinline__ bool more() const { return row + gridDim.y < rows_; }
  // Whether this thread has a k-th pack, where it starts in the group, and what input i has there.
  __device__ __forceinline__ bool has(int k) const {
    return k * int(blockDim.x) + int(threadIdx.x) < packs_;
  }
  __device__ __forceinline__ int column(int k) const {
    return (k * int(blockDim.x) + int(threadIdx.x)) * N;
  }
  __device__ __forceinline__ Wide get(int i, int k) const {
    return widen(load_pack<N>(reinterpret_cast<const T*>(place(stage_, i, k))));
  }
  // The sum over the team, in every thread.
  template <class A>
  __device__ __forceinline__ A sum(A x) {
    x = warp_sum(x);
    if (blockDim.x == kWarp) return x;
    __shared__ A room[2][kWalkThreads / kWarp];  // two, so that one barrier a row is enough
    turn_ ^= 1;
    if (threadIdx.x % kWarp == 0) room[turn_][threadIdx.x / kWarp] = x;
    __syncthreads();
    x = 0;
    for (int w = 0; w < int(blockDim.x) / kWarp; ++w) x += room[turn_][w];
    return x;
  }

  int64_t row, at;  // at: the group's first column

 private:
  __device__ __forceinline__ Pack<uint32_t, 4>* place(int stage, int i, int k) const {
    return room_ + ((stage * kInputs + i) * kPacks + k) * int(blockDim.x);
  }
  __device__ __forceinline__ void fetch(int stage) {
    if (next_ < rows_) {
#pragma unroll
      for (int i = 0; i < kInputs; ++i) {
#pragma unroll
        for (int k = 0; k < kPacks; ++k)
          if (has(k)) copy_async(place(stage, i, k), from_[i] + k * int(blockDim.x) * N);
        from_[i] += step_[i];
      }
      next_ += gridDim.y;
    }
    commit_copies();
  }

  Pack<uint32_t, 4>* room_;
  const T* from_[kInputs];
  int64_t step_[kInputs];
  int64_t rows_, next_;
  int packs_, stage_, last_, turn_ = 0;
};

// This thread's weights of the group; ones where there is no weight.
template <class Walk, int kPacks, int N, class A>
__device__ __forceinline__ void walk_weights(const Walk& walk, const A* w, bool plus_one,
                                             A (&out)[kPacks][N]) {
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    Pack<A, N> p{};
    if (walk.has(k))
      p = weights_at<N>(w ? w + walk.at : nullptr, int64_t(walk.column(k)), A(plus_one ? 1 : 0));
#pragma unroll
    for (int e = 0; e < N; ++e) out[k][e] = p.v[e];
  }
}

// Row `blockIdx.y` of partial: this thread's sums over its rows.
template <class Walk, int kPacks, int N, class A>
__device__ __forceinline__ void walk_sums(const Walk& walk, const Tensor& partial, int64_t offset,
                                          const A (&sums)[kPacks][N]) {
  A* out = partial.row<A>(blockIdx.y) + offset + walk.at;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (!walk.has(k)) continue;
    Pack<A, N> p;
#pragma unroll
    for (int e = 0; e < N; ++e) p.v[e] = sums[k][e];
    store_pack(out + walk.column(k), p);
  }
}

// The team for groups of `group` columns: as few idle threads as can be, then as few threads.
struct WalkTeam {
  int packs = 0, threads = 0;
};
template <class T>
WalkTeam walk_team(int64_t group, int inputs) {
  const int64_t packs = group / kPack<T>;
  WalkTeam best;
  if (group % kPack<T> != 0 || packs < kWarp) return best;
  for (int k = kWalkPacks; k >= 1; --k) {
    const int64_t threads = (packs + k * kWarp - 1) / (k * kWarp) * kWarp;
    if (threads > kWalkThreads) break;
    if (size_t(walk_stages(inputs) * inputs * k * threads) * 16 > kWalkRoom) continue;
    if (best.packs == 0 || k * threads < best.packs * best.threads) best = {k, int(threads)};
  }
  return best;
}

// Calls launch(packs as a constant, threads); false when groups of x cannot be walked.
template <class T, class F>
bool with_walk(const Tensor& x, int64_t group, int inputs, bool packs, const F& launch) {
  if constexpr (is_half<T>) {
    const WalkTeam team = packs && x.rows() > 0 ? walk_team<T>(group, inputs) : WalkTeam{};
    switch (team.packs) {
      case 1:
        return launch(std::integral_constant<int, 1>{}, team.threads), true;
      case 2:
        return launch(std::integral_constant<int, 2>{}, team.threads), true;
      case 3:
        return launch(std::integral_constant<int, 3>{}, team.threads), true;
      case 4:
        return launch(std::integral_constant<int, 4>{}, team.threads), true;
      case 5:
        return launch(std::integral_constant<int, 5>{}, team.threads), true;
    }
  }
  return false;
}

// Starts the walkers: with sums to keep, as many as the card holds at once and `partial` has rows.
// Without sums, many short walks where there are enough rows: reads and writes mix better when
// blocks are not in step. Returns their number.
template <class Args>
int64_t launch_walk(const char* op, void (*kernel)(Args), const Args& args, const Tensor& x,
                    int64_t group, const Tensor* partial, int inputs, int packs, int threads,
                    cudaStream_t stream) {
  const size_t bytes = size_t(walk_stages(inputs) * inputs * packs * threads) * 16;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
             op);
  const int64_t groups = x.cols() / group;
  int64_t walkers = resident_blocks(op, kernel, threads, bytes) / groups;
  if (!partial && x.rows() > 4 * kShortWalk * walkers) walkers = x.rows() / kShortWalk;
  if (partial && *partial && walkers > partial->rows()) walkers = partial->rows();
  if (walkers > x.rows()) walkers = x.rows();
  if (walkers < 1) walkers = 1;
  if (walkers > 65535) walkers = 65535;
  kernel<<<dim3(unsigned(groups), unsigned(walkers)), threads, bytes, stream>>>(args);
  return walkers;
}

}  // namespace
}  // namespace strata
