// Attention kernels for the CPU: forward over tiles of 64 query rows x 64 keys.
#include <omp.h>

#include "core/ops/cpu/attend_tile.h"

namespace strata {
namespace {

// One step of the online softmax on one vector of rows: scores to weights, in place.
// m, l: running maximum and sum. Returns whether earlier output must be scaled by alpha.
template <class T>
[[gnu::noinline]] bool softmax_step(T* st, int64_t keys, T* m, T* l, Vec<T>* alpha) {
  const Vec<T> before = load<T>(m);
  Vec<T> top = before;
  for (int64_t j = 0; j < keys; ++j) {
    const Vec<T> s = load<T>(st + j * kTile);
    top = s > top ? s : top;
  }
  Vec<T> sum{};
  for (int64_t j = 0; j < keys; ++j) {
    const Vec<T> p = exp2(load<T>(st + j * kTile) - top);
    store<T>(st + j * kTile, p);
    sum += p;
  }
  *alpha = exp2(before - top);
  store<T>(l, load<T>(l) * *alpha + sum);
  store<T>(m, top);
  const VecInt<T> same = before == top;
  bool changed = false;
  for (int i = 0; i < kLanes<T>; ++i) changed |= same[i] == 0;
  return changed;
}

template <class T>
void forward_tile(const Attention<T>& a, const int32_t* documents, int64_t b, int64_t g,
                  int64_t first, T* scratch) {
  constexpr int kW = kLanes<T>;
  const int64_t dim = a.head_dim;
  const RowTile<T> tile(a, documents, b, g, first);
  const ScoreScale<T> scale(a);
  T* qt = scratch;            // (head_dim, 64)
  T* ot = qt + dim * kTile;   // (head_dim, 64)
  T* st = ot + dim * kTile;   // (64 keys, 64 rows)
  T* m = st + kTile * kTile;  // (64) running maximum
  T* l = m + kTile;           // (64) running sum
  T* kv = l + kTile;          // (64 keys, head_dim)
  gather_transposed(a, tile, a.q, a.q_pitch, scale.query, qt);
  for (int64_t i = 0; i < dim * kTile; ++i) ot[i] = T(0);
  for (int64_t i = 0; i < kTile; ++i) m[i] = T(-1e30), l[i] = T(0);

  const Rows<T> keys = rows_of(a.k, a.k_pitch, a.k_pages, a, b, g);
  const Rows<T> values = rows_of(a.v, a.v_pitch, a.v_pages, a, b, g);
  for (int64_t j0 = tile.lo_min / kTile * kTile; j0 < tile.hi_max; j0 += kTile) {
    const KeyTile<T> key(tile, j0);
    const T* k = pack_rows(keys, key.begin, key.count, dim, kv);
    prefetch_rows(keys, j0 + kTile, tile.hi_max, dim);
    tile_matmul<T, false>(key.count, tile.lanes, dim, k, dim, qt, kTile, st, kTile, false);
    if (scale.cap > 0) tanh_scores(st, key.count, tile.lanes);
    for (int64_t c = 0; c < tile.lanes; c += kW) {
      if (scale.cap > 0 || key.masked) {
        for (int64_t j = 0; j < key.count; ++j) {
          T* s = st + j * kTile + c;
          Vec<T> score = load<T>(s);
          if (scale.cap > 0) score *= scale.cap;
          store<T>(s, mask_keys(tile, c, key.begin + j, score, T(-__builtin_inff())));
        }
      }
      Vec<T> alpha;
      if (softmax_step<T>(st + c, key.count, m + c, l + c, &alpha)) {
        for (int64_t d = 0; d < dim; ++d) {
          store<T>(ot + d * kTile + c, load<T>(ot + d * kTile + c) * alpha);
        }
      }
    }
    const T* v = pack_rows(values, key.begin, key.count, dim, kv);
    prefetch_rows(values, j0 + kTile, tile.hi_max, dim);
    tile_matmul<T, true>(dim, tile.lanes, key.count, v, dim, st, kTile, ot, kTile, true);
  }
  for (int64_t c = 0; c < tile.lanes; c += kW) {
    const Vec<T> sum = load<T>(l + c);
    const Vec<T> factor = sum == T(0) ? Vec<T>{} : T(1) / sum;  // a row without keys gives zero
    for (int64_t d = 0; d < dim; ++d) {
      store<T>(ot + d * kTile + c, load<T>(ot + d * kTile + c) * factor);
    }
  }
  lanes_to_rows(
      tile.rows, dim, ot, [&](int64_t i) { return a.y + tile.offset(a, i, a.y_pitch); }, false);
  if (!a.lse) return;
  for (int64_t i = 0; i < tile.rows; ++i) {
    a.lse[tile.head_offset(a, i)] = T(m[i] * kLn2) + simd::log(l[i]);
  }
}

template <class T>
void attend_cpu(const AttendArgs& args, Stream) {
  const Attention<T> a(args);
  const int64_t tiles = row_tiles(a), heads = a.batch * a.n_kv_heads;
  const AttendWorkspace size(args, sizeof(T));
  const int32_t* documents = find_documents(a, reinterpret_cast<int32_t*>(a.workspace));
  char* scratch = a.workspace + size.documents;
  // Head after head, so that its keys stay in the cache; late tiles see most keys and go first, so
  // that the end is even.
#pragma omp parallel for schedule(dynamic, 1) num_threads(a.threads) if (worth_forking(a))
  for (int64_t task = 0; task < heads * tiles; ++task) {
    const int64_t head = task / tiles, tile = tiles - 1 - task % tiles;
    forward_tile(a, documents, head / a.n_kv_heads, head % a.n_kv_heads, tile * kTile,
                 reinterpret_cast<T*>(scratch + omp_get_thread_num() * size.forward));
  }
}

STRATA_CPU_KERNEL("attend", AttendArgs, attend_cpu)

}  // namespace
}  // namespace strata
