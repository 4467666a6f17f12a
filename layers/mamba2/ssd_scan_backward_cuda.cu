// The chunked scan, backward. States at chunk starts are computed again, then the gradients of the
// states at chunk ends run from last to first; after that all chunks are independent. Notation as
// in ssd_scan_backward_cpu.cpp.
#include "layers/mamba2/ssd_chunk.cuh"

namespace strata::mamba2 {
namespace {

template <class T>
struct Back : Scan<T> {
  Tensor dy, dfinal_state;
  GradTarget dx, ddt, db, dc, da_log, dd, ddt_bias, dinitial_state;

  explicit Back(const SsdScanBackwardArgs& a)
      : Scan<T>(a.forward, true),
        dy(a.dy),
        dfinal_state(a.dfinal_state),
        dx(a.dx),
        ddt(a.ddt),
        db(a.db),
        dc(a.dc),
        da_log(a.da_log),
        dd(a.dd),
        ddt_bias(a.ddt_bias),
        dinitial_state(a.dinitial_state) {}
};

// Turns what each chunk adds to the gradient of the state before it into the gradients at chunk
// ends, from last to first; what is left belongs to the initial state. One thread per element.
template <class T>
__global__ void pass_dstates_kernel(Back<T> k) {
  constexpr int kAhead = 8;
  const int64_t size = k.s.dim * k.s.states, heads = k.s.heads, stride = heads * size;
  STRATA_GRID_LOOP(i, k.s.batch * stride) {
    const int64_t b = i / stride, e = i % stride;
    T ds = k.dfinal_state ? k.dfinal_state.template ptr<T>()[i] : T(0);
    T* dstates = k.w.dstates + b * k.s.chunks * stride + e;
    const T* last = k.w.decay + (b * k.s.chunks * heads + e / size) * kQ + kQ - 1;
    for (int64_t c = k.s.chunks - 1; c >= 0; c -= kAhead) {
      T added[kAhead], decay[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c >= j) {
          added[j] = dstates[(c - j) * stride];
          decay[j] = last[(c - j) * heads * kQ];
        }
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c >= j) {
          dstates[(c - j) * stride] = ds;
          ds = decay[j] * ds + added[j];
        }
    }
    if (k.dinitial_state.wanted)
      put(k.dinitial_state.grad.template ptr<T>() + i, ds, k.dinitial_state.accumulate);
  }
}

// Shared memory of head_kernel. Vectors are (Q,).
template <class T>
struct HeadShared {
  alignas(16) T room[kTileRoom];
  T m[kQ * kQ], terms[kQ * kQ];  // M; dW, then U_ij M_{i-1,j}
  T a[kQ], dt[kQ], decay[kQ], tail[kQ];
  T u[kQ], dp[kQ], da[kQ], ddt[kQ];
  T sums[kTileThreads / kWarp];
};

// One chunk of one head: dx, d(dt_raw), the head's share of dG, and its sums for dA_log, dD and
// ddt_bias.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 2) head_kernel(Back<T> k) {
  extern __shared__ __align__(16) char shared[];
  HeadShared<T>& l = *reinterpret_cast<HeadShared<T>*>(shared);
  const int thread = threadIdx.x;
  const Place at(k, blockIdx.x, k.s.heads);
  const int dim = int(k.s.dim), n = int(k.s.states), q = at.tokens;
  const int64_t h = at.inner, group = h / k.s.heads_per_group;
  const int64_t x_pitch = k.args.x.pitch, dy_pitch = k.dy.pitch;
  const int64_t b_pitch = k.args.b.pitch, c_pitch = k.args.c.pitch;
  const T* x = k.args.x.template row<T>(at.row0) + h * dim;
  const T* dy = k.dy.template row<T>(at.row0) + h * dim;
  const T* b = k.args.b.template row<T>(at.row0) + group * n;
  const T* c = k.args.c.template row<T>(at.row0) + group * n;
  const T* g = k.w.g + (at.index / k.s.heads * k.s.groups + group) * kQ * kQ;
  const T *state = k.w.states + at.index * dim * n, *ds = k.w.dstates + at.index * dim * n;
  const T skip = k.args.d ? k.args.d.template ptr<T>()[h] : T(0);
  if (thread < kQ) {
    const int64_t from = at.index * kQ + thread;
    l.a[thread] = k.w.a[from], l.dt[thread] = k.w.dt[from];
    l.decay[thread] = k.w.decay[from], l.tail[thread] = k.w.tail[from];
    l.u[thread] = l.dp[thread] = T(0);
  }
  __syncthreads();
  decay_columns(l.a, l.dt, [&](int i, int j, T m) { l.m[i * kQ + j] = m; });

  // dW = dy x^T
  T dw[4][4] = {};
  tile_product<true, true>(
      dw, dim, [&](int i, int p) { return i < q ? dy[i * dy_pitch + p] : T(0); },
      [&](int p, int j) { return j < q ? x[j * x_pitch + p] : T(0); }, l.room);
  each_of_tile(dw, [&](int i, int j, T value) { l.terms[i * kQ + j] = value; });
  __syncthreads();

  T dskip = 0;
  for (int p0 = 0; p0 < dim; p0 += kTile) {
    const auto inside = [&](int t, int p) { return t < q && p0 + p < dim; };
    // Z = B dS^T: u = x . Z, the gradient of M's last row, and dx = M_Q o Z + W^T dy + D dy
    T acc[4][4] = {};
    tile_product<true, true>(
        acc, n, [&](int j, int s) { return j < q ? b[j * b_pitch + s] : T(0); },
        [&](int s, int p) { return p0 + p < dim ? ds[int64_t(p0 + p) * n + s] : T(0); }, l.room);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int j = tile_row() + r;
      T u = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int p = tile_col() + i;
        if (inside(j, p)) u += acc[r][i] * x[j * x_pitch + p0 + p];
        acc[r][i] *= l.tail[j];
      }
      u = tile_row_sum(u);
      if (thread % 16 == 0) l.u[j] += u;
    }
    tile_product<false, false>(
        acc, q, [&](int j, int i) { return j <= i ? g[i * kQ + j] * l.m[i * kQ + j] : T(0); },
        [&](int i, int p) { return p0 + p < dim ? dy[i * dy_pitch + p0 + p] : T(0); }, l.room);
    each_of_tile(acc, [&](int j, int p, T value) {
      if (!inside(j, p)) return;
      const T dy_jp = dy[j * dy_pitch + p0 + p];
      dskip += x[j * x_pitch + p0 + p] * dy_jp;
      if (k.dx.wanted)
        put(k.dx.grad.template row<T>(at.row0 + j) + h * dim + p0 + p, value + skip * dy_jp,
            k.dx.accumulate);
    });
    // dp = dy . (C S^T), the gradient of the running products
    T read[4][4] = {};
    tile_product<true, true>(
        read, n, [&](int i, int s) { return i < q ? c[i * c_pitch + s] : T(0); },
        [&](int s, int p) { return p0 + p < dim ? state[int64_t(p0 + p) * n + s] : T(0); }, l.room);
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int i = tile_row() + r;
      T dp = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int p = tile_col() + j;
        if (inside(i, p)) dp += read[r][j] * dy[i * dy_pitch + p0 + p];
      }
      dp = tile_row_sum(dp);
      if (thread % 16 == 0) l.dp[i] += dp;
    }
  }
  T through_state = 0;
  for (int e = thread; e < dim * n; e += kTileThreads) through_state += ds[e] * state[e];
  through_state = block_sum(through_state, l.sums);
  if (thread == 0) l.dp[kQ - 1] += through_state;
  __syncthreads();

  T* dg = k.w.dg_heads + at.index * kQ * kQ;
  if (thread < kQ)
    for (int i = 0; i < thread; ++i) dg[i * kQ + thread] = T(0);
  decay_adjoint(
      l.a, l.m, l.decay,
      [&](int i, int j) {
        const T value = l.terms[i * kQ + j];
        dg[i * kQ + j] = value * l.m[i * kQ + j];
        return value * g[i * kQ + j];
      },
      [&](int j) { return l.u[j]; }, l.terms, l.dp, l.da, l.ddt);

  T dlog = 0, dbias = 0;
  if (thread < q) {
    const int64_t from = at.index * kQ + thread;
    const T through = k.w.slope[from] * l.da[thread];
    dlog = l.dt[thread] * through;
    dbias = (l.ddt[thread] + through) * k.w.open[from];
    if (k.ddt.wanted)
      put(k.ddt.grad.template row<T>(at.row0 + thread) + h, dbias, k.ddt.accumulate);
  }
  const T sums[3] = {block_sum(dlog, l.sums), block_sum(dskip, l.sums), block_sum(dbias, l.sums)};
  const int64_t pairs = k.s.batch * k.s.chunks * k.s.heads;
  if (thread == 0)
    for (int part = 0; part < 3; ++part) k.w.sums[part * pairs + at.index] = sums[part];
}

// dG of a group: the sum over its heads, in their order. One block per (batch, chunk, group).
template <class T>
__global__ void sum_dg_kernel(Back<T> k) {
  const int64_t index = blockIdx.x, per_group = k.s.heads_per_group;
  const T* from = k.w.dg_heads + index * per_group * kQ * kQ;
  for (int e = threadIdx.x; e < kQ * kQ; e += blockDim.x) {
    T sum = 0;
    for (int64_t h = 0; h < per_group; ++h) sum += from[h * kQ * kQ + e];
    k.w.dg[index * kQ * kQ + e] = sum;
  }
}

// dC = dG B + sum over heads of (p o dy) S, or (kIsB) dB = dG^T C + sum of (M_Q o x) dS: 64 columns
// of one (batch, chunk, group), the heads in their order. blockIdx.y: tile of N.
template <class T, bool kIsB>
__global__ void __launch_bounds__(kTileThreads) group_kernel(Back<T> k) {
  __shared__ alignas(16) T room[kTileRoom];
  const Place at(k, blockIdx.x, k.s.groups);
  const int dim = int(k.s.dim), n = int(k.s.states), q = at.tokens, n0 = int(blockIdx.y) * kTile;
  const Tensor& rows = kIsB ? k.args.x : k.dy;
  const Tensor& other = kIsB ? k.args.c : k.args.b;
  const int64_t pitch = rows.pitch, other_pitch = other.pitch, size = int64_t(dim) * n;
  T acc[4][4] = {};
  for (int64_t m = 0; m < k.s.heads_per_group; ++m) {
    const int64_t h = at.inner * k.s.heads_per_group + m;
    const int64_t pair = at.index / k.s.groups * k.s.heads + h;
    const T* x = rows.row<T>(at.row0) + h * dim;
    const T* factor = (kIsB ? k.w.tail : k.w.decay) + pair * kQ;
    const T* state = (kIsB ? k.w.dstates : k.w.states) + pair * size + n0;
    tile_product<true, false>(
        acc, dim, [&](int i, int p) { return i < q ? factor[i] * x[i * pitch + p] : T(0); },
        [&](int p, int s) { return n0 + s < n ? state[int64_t(p) * n + s] : T(0); }, room);
  }
  const T* dg = k.w.dg + at.index * kQ * kQ;
  const T* from = other.row<T>(at.row0) + at.inner * n + n0;
  tile_product<!kIsB, false>(
      acc, q, [&](int i, int j) { return kIsB ? dg[j * kQ + i] : dg[i * kQ + j]; },
      [&](int j, int s) { return n0 + s < n ? from[j * other_pitch + s] : T(0); }, room);
  const GradTarget& to = kIsB ? k.db : k.dc;
  each_of_tile(acc, [&](int i, int s, T value) {
    if (i < q && n0 + s < n)
      put(to.grad.row<T>(at.row0 + i) + at.inner * n + n0 + s, value, to.accumulate);
  });
}

// dA_log, dD and ddt_bias: sums over batch and chunks. blockIdx: head, which.
template <class T>
__global__ void reduce_kernel(Back<T> k) {
  __shared__ T room[kThreads / kWarp];
  const GradTarget& to = blockIdx.y == 0 ? k.da_log : blockIdx.y == 1 ? k.dd : k.ddt_bias;
  if (!to.wanted) return;
  const int64_t places = k.s.batch * k.s.chunks, heads = k.s.heads, h = blockIdx.x;
  T sum = 0;
  for (int64_t i = threadIdx.x; i < places; i += blockDim.x)
    sum += k.w.sums[(blockIdx.y * places + i) * heads + h];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) put(to.grad.ptr<T>() + h, sum, to.accumulate);
}

template <class T>
void ssd_scan_backward_cuda(const SsdScanBackwardArgs& args, Stream on) {
  const cudaStream_t stream = stream_of(on);
  const Back<T> k(args);
  const unsigned pairs = unsigned(k.s.batch * k.s.chunks * k.s.heads);
  const unsigned places = unsigned(k.s.batch * k.s.chunks * k.s.groups);
  chunk_states<T>(k, stream);
  outer_kernel<T><<<dim3(pairs, outer_tiles(k.s)), kTileThreads, 0, stream>>>(
      k, k.dy, k.args.c, k.w.decay, k.w.dstates);
  pass_dstates_kernel<T>
      <<<blocks_for(k.s.batch * k.s.heads * k.s.dim * k.s.states), kThreads, 0, stream>>>(k);
  constexpr int kShared = int(sizeof(HeadShared<T>));
  check_cuda(
      cudaFuncSetAttribute(head_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
      "ssd_scan_backward");
  head_kernel<T><<<pairs, kTileThreads, kShared, stream>>>(k);
  if (k.s.heads_per_group > 1) sum_dg_kernel<T><<<places, kThreads, 0, stream>>>(k);
  const dim3 grid(places, unsigned((k.s.states + kTile - 1) / kTile));
  if (k.db.wanted) group_kernel<T, true><<<grid, kTileThreads, 0, stream>>>(k);
  if (k.dc.wanted) group_kernel<T, false><<<grid, kTileThreads, 0, stream>>>(k);
  reduce_kernel<T><<<dim3(unsigned(k.s.heads), 3), kThreads, 0, stream>>>(k);
  check_launch("ssd_scan_backward");
}

STRATA_CUDA_KERNEL("ssd_scan_backward", SsdScanBackwardArgs, ssd_scan_backward_cuda)

}  // namespace
}  // namespace strata::mamba2
