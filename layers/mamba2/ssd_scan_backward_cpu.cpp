// The chunked scan, backward: states at chunk starts are computed again, then chunks run from last
// to first with dS, the gradient of the state at the chunk's end. With Z = B dS^T, V = dy S, and
// per head U, the adjoint of the rows of M:
//   dx = W^T dy + M_Q o Z + D dy                    dW = dy x^T, dG += dW o M
//   dC = dG B + p o V, dB = dG^T C + (M_Q o x) dS   dS <- p_Q dS + (p o dy)^T C
//   U_i = dW_i o G_i + a_{i+1} U_{i+1},  da_i = U_i . M_{i-1},  d(dt_i) = U_ii
#include "core/kernels/register.h"
#include "layers/mamba2/ssd_chunk_cpu.h"

namespace strata::mamba2 {
namespace {

template <class T>
STRATA_INLINE T dot(const T* a, const T* b, int64_t n) {
  constexpr int lanes = kLanes<T>;
  const int64_t whole = n / lanes * lanes;
  Vec<T> sum{};
  for (int64_t j = 0; j < whole; j += lanes) sum += load(a + j) * load(b + j);
  if (whole < n) sum += load_part(a + whole, int(n - whole)) * load_part(b + whole, int(n - whole));
  return sum_lanes<T>(sum);
}

// Writes or adds q rows of `cols` to a gradient.
template <class T>
STRATA_INLINE void deliver(const GradTarget& to, int64_t first_row, int64_t column, const T* from,
                           int64_t q, int64_t cols) {
  if (!to.wanted) return;
  for (int64_t t = 0; t < q; ++t) {
    T* row = to.grad.row<T>(first_row + t) + column;
    const T* x = from + t * cols;
    if (to.accumulate)
      for (int64_t p = 0; p < cols; ++p) row[p] += x[p];
    else
      for (int64_t p = 0; p < cols; ++p) row[p] = x[p];
  }
}

// U, dG, da and the diagonal part of d(dt), from the last row up. u starts as e, the gradient of
// M's last row through the state.
template <class T>
void adjoint_rows(const T* g, const T* m, const T* dw, const T* a, int64_t q, int64_t ld, T* u,
                  T* dg, T* da, T* ddt) {
  constexpr int lanes = kLanes<T>;
  for (int64_t i = q - 1; i >= 0; --i) {
    const int64_t end = std::min(q, i / kTriangleRows * kTriangleRows + kTriangleRows);
    const T decay = i + 1 < q ? a[i + 1] : T(1);
    const T *gi = g + i * ld, *mi = m + i * ld, *dwi = dw + i * ld;
    T* dgi = dg + i * ld;
    for (int64_t j = 0; j < end; ++j) {
      dgi[j] += dwi[j] * mi[j];
      u[j] = decay * u[j] + dwi[j] * gi[j];
    }
    ddt[i] = u[i];
    Vec<T> sum{};
    if (i > 0) {
      const T* before = mi - ld;
      const int64_t whole = i / lanes * lanes;
      for (int64_t j = 0; j < whole; j += lanes) sum += load(u + j) * load(before + j);
      if (whole < i)
        sum += load_part(u + whole, int(i - whole)) * load_part(before + whole, int(i - whole));
    }
    da[i] = sum_lanes<T>(sum);
  }
}

// One chunk of one head. s0: state at the chunk's start (not read unless has_state); ds: gradient
// of the state at its end, moved to the start.
template <class T>
void backward_head(const Scan<T>& s, const SsdScanBackwardArgs& args, const Block& at, int64_t k,
                   int64_t t0, int64_t q, const T* s0, bool has_state, bool has_later,
                   bool want_earlier, const SsdChunkBuffers<T>& w, T* ds, T* sums) {
  const int64_t h = at.first + k, dim = s.dim, n = s.states, ld = s.chunk;
  const int64_t row0 = at.batch * s.seq_len + t0, x_pitch = s.args.x.pitch;
  const int64_t dy_pitch = args.dy.pitch, b_pitch = s.args.b.pitch, c_pitch = s.args.c.pitch;
  const T *x = s.x(at.batch, t0, h), *dy = args.dy.row<T>(row0) + h * dim;
  const T *b = s.b(at.batch, t0, at.group), *c = s.c(at.batch, t0, at.group);
  const T *dt = w.dt + k * ld, *a = w.a + k * ld, *slope = w.slope + k * ld;
  const T skip = s.args.d ? s.args.d.template ptr<T>()[h] : T(0);
  const T last = running_product(a, q, w.decay);
  masked<T>(w.g, a, dt, q, ld, w.row, w.w, w.m);

  if (has_later) gemm<T>(Trans::no, Trans::yes, q, dim, n, 1, b, b_pitch, ds, n, 0, w.z, dim);
  T dskip = T(0);
  for (int64_t j = 0; j < q; ++j) {
    const T *xj = x + j * x_pitch, *dyj = dy + j * dy_pitch, *zj = w.z + j * dim;
    T* to = w.dx + j * dim;
    dskip += dot(xj, dyj, dim);
    w.u[j] = T(0);
    if (has_later) {
      const T f = w.row[j];
      for (int64_t p = 0; p < dim; ++p) to[p] = skip * dyj[p] + f * zj[p];
      w.u[j] = dot(xj, zj, dim);
    } else {
      for (int64_t p = 0; p < dim; ++p) to[p] = skip * dyj[p];
    }
  }
  for (int64_t r = 0; r < q; r += kTriangleRows) {
    const int64_t end = std::min(q, r + kTriangleRows);
    gemm<T>(Trans::yes, Trans::no, end - r, dim, q - r, 1, w.w + r * ld + r, ld, dy + r * dy_pitch,
            dy_pitch, 1, w.dx + r * dim, dim);
    gemm<T>(Trans::no, Trans::yes, end - r, end, dim, 1, dy + r * dy_pitch, dy_pitch, x, x_pitch, 0,
            w.dw + r * ld, ld);
  }
  deliver(args.dx, row0, h * dim, w.dx, q, dim);

  for (int64_t i = 0; i < q; ++i) w.dp[i] = T(0);
  if (has_state) {
    gemm<T>(Trans::no, Trans::no, q, n, dim, 1, dy, dy_pitch, s0, n, 0, w.v, n);
    for (int64_t i = 0; i < q; ++i) {
      const T *vi = w.v + i * n, *ci = c + i * c_pitch;
      T* dci = w.dc + i * n;
      const T decay = w.decay[i];
      w.dp[i] = dot(vi, ci, n);
      for (int64_t j = 0; j < n; ++j) dci[j] += decay * vi[j];
    }
  }
  if (has_later) {
    scale_rows<T>(x, x_pitch, w.row, q, dim, w.xw);
    gemm<T>(Trans::no, Trans::no, q, n, dim, 1, w.xw, dim, ds, n, 1, w.db, n);
    if (has_state) w.dp[q - 1] += dot(ds, s0, dim * n);
  }
  adjoint_rows(w.g, w.m, w.dw, a, q, ld, w.u, w.dg, w.da, w.ddt);
  T carry = T(0);
  for (int64_t i = q - 1; i >= 0; --i) {  // p_i = a_i p_{i-1}
    carry = w.dp[i] + (i + 1 < q ? a[i + 1] * carry : T(0));
    w.da[i] += carry * (i > 0 ? w.decay[i - 1] : T(1));
  }
  if (want_earlier) {
    scale_rows<T>(dy, dy_pitch, w.decay, q, dim, w.xw);
    gemm<T>(Trans::yes, Trans::no, dim, n, q, 1, w.xw, dim, c, c_pitch, has_later ? last : T(0), ds,
            n);
  }

  T dlog = T(0), dbias = T(0);
  const T* open = w.open + k * ld;
  for (int64_t i = 0; i < q; ++i) {
    const T through = slope[i] * w.da[i];
    dlog += dt[i] * through;
    const T draw = (w.ddt[i] + through) * open[i];
    dbias += draw;
    if (args.ddt.wanted) {
      T& to = args.ddt.grad.row<T>(row0 + i)[h];
      to = args.ddt.accumulate ? to + draw : draw;
    }
  }
  const int64_t stride = s.tasks.batch * s.heads, place = at.batch * s.heads + h;
  sums[place] += dlog;
  sums[stride + place] += dskip;
  sums[2 * stride + place] += dbias;
}

// dB and dC of a chunk: the part through G, then out, to the gradient or to this block's share.
template <class T>
void finish_chunk(const Scan<T>& s, const SsdScanBackwardArgs& args, const Block& at, int64_t t0,
                  int64_t q, const SsdChunkBuffers<T>& w, const SsdWorkspace<T>& work) {
  const int64_t n = s.states, ld = s.chunk, row0 = at.batch * s.seq_len + t0;
  const T *b = s.b(at.batch, t0, at.group), *c = s.c(at.batch, t0, at.group);
  for (int64_t r = 0; r < q; r += kTriangleRows) {
    const int64_t end = std::min(q, r + kTriangleRows);
    gemm<T>(Trans::no, Trans::no, end - r, n, end, 1, w.dg + r * ld, ld, b, s.args.b.pitch, 1,
            w.dc + r * n, n);
    gemm<T>(Trans::yes, Trans::no, end - r, n, q - r, 1, w.dg + r * ld + r, ld,
            c + r * s.args.c.pitch, s.args.c.pitch, 1, w.db + r * n, n);
  }
  if (!work.db) {
    deliver(args.db, row0, at.group * n, w.db, q, n);
    deliver(args.dc, row0, at.group * n, w.dc, q, n);
    return;
  }
  const int64_t width = s.o.n_groups * n, rows = s.tasks.batch * s.seq_len;
  for (int64_t t = 0; t < q; ++t) {
    const int64_t place = (at.block * rows + row0 + t) * width + at.group * n;
    std::copy_n(w.db + t * n, n, work.db + place);
    std::copy_n(w.dc + t * n, n, work.dc + place);
  }
}

// The states at the starts of chunks 1, 2, ... of a task (chunk 0 starts from s.start()).
template <class T>
void forward_states(const Scan<T>& s, const Block& at, const SsdChunkBuffers<T>& w, T* states) {
  const int64_t size = s.dim * s.states, all = s.tasks.batch * s.heads * size;
  const int64_t offset = (at.batch * s.heads + at.first) * size;
  const T* start = s.start(at.batch);
  for (int64_t chunk = 0; chunk + 1 < s.tasks.chunks; ++chunk) {
    const int64_t t0 = chunk * s.chunk, q = s.chunk;
    coefficients(s, at.batch, at.first, at.count, t0, q, w);
    for (int64_t k = 0; k < at.count; ++k) {
      const T *dt = w.dt + k * s.chunk, *a = w.a + k * s.chunk;
      const T last = running_product(a, q, w.decay);
      T factor = T(1);
      for (int64_t j = q - 1; j >= 0; --j) {
        w.row[j] = factor * dt[j];
        factor *= a[j];
      }
      scale_rows<T>(s.x(at.batch, t0, at.first + k), s.args.x.pitch, w.row, q, s.dim, w.xw);
      T* next = states + (chunk + 1) * all + offset + k * size;
      const T* now = chunk > 0 ? next - all : start ? start + (at.first + k) * size : nullptr;
      if (now)
        for (int64_t i = 0; i < size; ++i) next[i] = last * now[i];
      gemm<T>(Trans::yes, Trans::no, s.dim, s.states, q, 1, w.xw, s.dim,
              s.b(at.batch, t0, at.group), s.args.b.pitch, now ? T(1) : T(0), next, s.states);
    }
  }
}

template <class T>
void backward_task(const Scan<T>& s, const SsdScanBackwardArgs& args, const Block& at,
                   const SsdChunkBuffers<T>& w, const SsdWorkspace<T>& work) {
  const int64_t size = s.dim * s.states, all = s.tasks.batch * s.heads * size;
  const int64_t offset = (at.batch * s.heads + at.first) * size;
  const T* start = s.start(at.batch);
  T* ds = work.dstates + offset;
  if (args.dfinal_state) std::copy_n(args.dfinal_state.ptr<T>() + offset, at.count * size, ds);
  for (int64_t part = 0; part < 3; ++part)
    std::fill_n(work.sums + part * s.tasks.batch * s.heads + at.batch * s.heads + at.first,
                at.count, T(0));
  forward_states(s, at, w, work.states);
  for (int64_t chunk = s.tasks.chunks - 1; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * s.chunk, q = std::min(s.chunk, s.seq_len - t0);
    coefficients(s, at.batch, at.first, at.count, t0, q, w);
    correlate(s, s.b(at.batch, t0, at.group), s.c(at.batch, t0, at.group), q, w.g);
    std::fill_n(w.dg, q * s.chunk, T(0));
    std::fill_n(w.db, q * s.states, T(0));
    std::fill_n(w.dc, q * s.states, T(0));
    const bool has_later = chunk + 1 < s.tasks.chunks || args.dfinal_state;
    const bool want_earlier = chunk > 0 || args.dinitial_state.wanted;
    for (int64_t k = 0; k < at.count; ++k) {
      const T* s0 = chunk > 0 ? work.states + chunk * all + offset + k * size
                    : start   ? start + (at.first + k) * size
                              : nullptr;
      backward_head(s, args, at, k, t0, q, s0, s0 != nullptr, has_later, want_earlier, w,
                    ds + k * size, work.sums);
    }
    finish_chunk(s, args, at, t0, q, w, work);
  }
  if (!args.dinitial_state.wanted) return;
  T* to = args.dinitial_state.grad.ptr<T>() + offset;
  for (int64_t i = 0; i < at.count * size; ++i)
    to[i] = args.dinitial_state.accumulate ? to[i] + ds[i] : ds[i];
}

// Sums over head blocks and over the batch, in their order.
template <class T>
void reduce(const Scan<T>& s, const SsdScanBackwardArgs& args, const SsdWorkspace<T>& work) {
  const int64_t rows = s.tasks.batch * s.seq_len, width = s.o.n_groups * s.states;
  if (work.db)
    parallel_for(rows, grain_for(2 * width * s.tasks.blocks), [&](int64_t begin, int64_t end) {
      for (const bool is_b : {true, false}) {
        T* parts = is_b ? work.db : work.dc;
        for (int64_t block = 1; block < s.tasks.blocks; ++block)
          for (int64_t i = begin * width; i < end * width; ++i)
            parts[i] += parts[block * rows * width + i];
        deliver(is_b ? args.db : args.dc, begin, 0, parts + begin * width, end - begin, width);
      }
    });
  const GradTarget* targets[] = {&args.da_log, &args.dd, &args.ddt_bias};
  for (int part = 0; part < 3; ++part) {
    if (!targets[part]->wanted) continue;
    T* to = targets[part]->grad.template ptr<T>();
    for (int64_t h = 0; h < s.heads; ++h) {
      T sum = targets[part]->accumulate ? to[h] : T(0);
      for (int64_t b = 0; b < s.tasks.batch; ++b)
        sum += work.sums[(part * s.tasks.batch + b) * s.heads + h];
      to[h] = sum;
    }
  }
}

template <class T>
void ssd_scan_backward_cpu(const SsdScanBackwardArgs& args, Stream) {
  const Scan<T> s(args.forward);
  const SsdWorkspace<T> work(args.forward, true, args.forward.workspace.ptr<char>());
  parallel_for(s.tasks.count(s.o), task_grain(s), [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    SsdCarver carve{work.per_thread +
                    omp_get_thread_num() % args.forward.threads * work.thread_bytes};
    const SsdChunkBuffers<T> w(carve, s.o, s.tasks, true);
    for (int64_t task = begin; task < end; ++task) backward_task(s, args, Block(s, task), w, work);
  });
  reduce(s, args, work);
}

STRATA_CPU_KERNEL("ssd_scan_backward", SsdScanBackwardArgs, ssd_scan_backward_cpu)

}  // namespace
}  // namespace strata::mamba2
