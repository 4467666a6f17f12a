// The chunked scan, forward. See ssd_chunk_cpu.h for the algebra.
#include "core/kernels/register.h"
#include "layers/mamba2/ssd_chunk_cpu.h"

namespace strata::mamba2 {
namespace {

// One head over one chunk: y, and the state s (head_dim, d_state) moved to the chunk's end.
template <class T>
void forward_head(const Scan<T>& s, const Block& at, int64_t k, int64_t t0, int64_t q,
                  bool has_state, bool keep, const SsdChunkBuffers<T>& w, T* state) {
  const int64_t h = at.first + k, dim = s.dim, n = s.states;
  const int64_t x_pitch = s.args.x.pitch, y_pitch = s.args.y.pitch;
  const T* x = s.x(at.batch, t0, h);
  T* y = s.args.y.template row<T>(at.batch * s.seq_len + t0) + h * dim;
  const T *dt = w.dt + k * s.chunk, *a = w.a + k * s.chunk;
  const T skip = s.args.d ? s.args.d.template ptr<T>()[h] : T(0);
  const T last = running_product(a, q, w.decay);
  masked<T>(w.g, a, dt, q, s.chunk, w.row, w.w, nullptr);

  if (has_state)
    gemm<T>(Trans::no, Trans::yes, q, dim, n, 1, s.c(at.batch, t0, at.group), s.args.c.pitch, state,
            n, 0, y, y_pitch);
  for (int64_t i = 0; i < q; ++i) {
    T* to = y + i * y_pitch;
    const T* from = x + i * x_pitch;
    const T decay = w.decay[i];
    if (has_state)
      for (int64_t p = 0; p < dim; ++p) to[p] = decay * to[p] + skip * from[p];
    else
      for (int64_t p = 0; p < dim; ++p) to[p] = skip * from[p];
  }
  for (int64_t r = 0; r < q; r += kTriangleRows) {
    const int64_t end = std::min(q, r + kTriangleRows);
    gemm<T>(Trans::no, Trans::no, end - r, dim, end, 1, w.w + r * s.chunk, s.chunk, x, x_pitch, 1,
            y + r * y_pitch, y_pitch);
  }
  if (!keep) return;
  scale_rows<T>(x, x_pitch, w.row, q, dim, w.xw);
  gemm<T>(Trans::yes, Trans::no, dim, n, q, 1, w.xw, dim, s.b(at.batch, t0, at.group),
          s.args.b.pitch, has_state ? last : T(0), state, n);
}

template <class T>
void ssd_scan_cpu(const SsdScanArgs& args, Stream) {
  const Scan<T> s(args);
  const SsdWorkspace<T> work(args, false, args.workspace.ptr<char>());
  const int64_t size = s.dim * s.states;
  parallel_for(s.tasks.count(s.o), task_grain(s), [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    SsdCarver carve{work.per_thread + omp_get_thread_num() % args.threads * work.thread_bytes};
    const SsdChunkBuffers<T> w(carve, s.o, s.tasks, false);
    for (int64_t task = begin; task < end; ++task) {
      const Block at(s, task);
      const T* start = s.start(at.batch);
      T* finish = s.end(at.batch);
      // The state runs in its final place if it has one.
      T* states = finish ? finish : work.states + at.batch * s.heads * size;
      if (start && start != finish)
        std::copy_n(start + at.first * size, at.count * size, states + at.first * size);
      for (int64_t t0 = 0; t0 < s.seq_len; t0 += s.chunk) {
        const int64_t q = std::min(s.chunk, s.seq_len - t0);
        coefficients(s, at.batch, at.first, at.count, t0, q, w);
        correlate(s, s.b(at.batch, t0, at.group), s.c(at.batch, t0, at.group), q, w.g);
        const bool keep = finish || t0 + q < s.seq_len;
        for (int64_t k = 0; k < at.count; ++k)
          forward_head(s, at, k, t0, q, start || t0 > 0, keep, w, states + (at.first + k) * size);
      }
    }
  });
}

// One token of one head: s <- a s + dt x B^T, y = s C + D x.
template <class T>
STRATA_INLINE void step_head(T a, const T* dtx, const T* b, const T* c, int64_t dim, int64_t n,
                             T* state, T* y) {
  constexpr int lanes = kLanes<T>;
  const int64_t whole = n / lanes * lanes;
  const int part = int(n - whole);
  for (int64_t p = 0; p < dim; ++p) {
    T* s = state + p * n;
    Vec<T> sum{};
    const T u = dtx[p];
    for (int64_t j = 0; j < whole; j += lanes) {
      const Vec<T> v = a * load(s + j) + u * load(b + j);
      store(s + j, v);
      sum += v * load(c + j);
    }
    if (part) {
      const Vec<T> v = a * load_part(s + whole, part) + u * load_part(b + whole, part);
      store_part(s + whole, v, part);
      sum += v * load_part(c + whole, part);
    }
    y[p] = sum_lanes<T>(sum);
  }
}

// The recurrence token by token: the decode kernel, and the definition that tests compare with.
template <class T>
void ssd_step_cpu(const SsdScanArgs& args, Stream) {
  const Scan<T> s(args);
  const SsdWorkspace<T> work(args, false, args.workspace.ptr<char>());
  const int64_t size = s.dim * s.states;
  const int64_t pairs = s.tasks.batch * s.heads;
  parallel_for(pairs, grain_for(size * s.seq_len), [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    SsdCarver carve{work.per_thread + omp_get_thread_num() % args.threads * work.thread_bytes};
    const SsdChunkBuffers<T> w(carve, s.o, s.tasks, false);
    for (int64_t pair = begin; pair < end; ++pair) {
      const int64_t b = pair / s.heads, h = pair % s.heads, g = h / s.tasks.heads_per_group;
      const T* start = s.start(b);
      T* finish = s.end(b);
      T* state = (finish ? finish : work.states + b * s.heads * size) + h * size;
      if (!start)
        std::fill_n(state, size, T(0));
      else if (start != finish)
        std::copy_n(start + h * size, size, state);
      const T skip = args.d ? args.d.ptr<T>()[h] : T(0);
      for (int64_t t = 0; t < s.seq_len; ++t) {
        if (t % s.chunk == 0) coefficients(s, b, h, 1, t, std::min(s.chunk, s.seq_len - t), w);
        const T* x = s.x(b, t, h);
        T* y = args.y.row<T>(b * s.seq_len + t) + h * s.dim;
        for (int64_t p = 0; p < s.dim; ++p) w.xw[p] = w.dt[t % s.chunk] * x[p];
        step_head<T>(w.a[t % s.chunk], w.xw, s.b(b, t, g), s.c(b, t, g), s.dim, s.states, state, y);
        for (int64_t p = 0; p < s.dim; ++p) y[p] += skip * x[p];
      }
    }
  });
}

STRATA_CPU_KERNEL("ssd_scan", SsdScanArgs, ssd_scan_cpu)
STRATA_CPU_KERNEL("ssd_step", SsdScanArgs, ssd_step_cpu)

}  // namespace
}  // namespace strata::mamba2
