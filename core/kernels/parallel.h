// Loops over OpenMP threads for kernel files. Work is cut by sizes and never by the number of
// threads, so that a reduction over the pieces has one order whatever machine it runs on.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace strata {

// About how many simple operations pay for waking the other threads (measured: 2-4 us).
inline constexpr int64_t kForkWork = 32 * 1024;

// A grain for parallel_for over items of `work` simple operations each: pieces of about kForkWork.
[[gnu::always_inline]] inline int64_t grain_for(int64_t work) {
  return std::max<int64_t>(1, kForkWork / std::max<int64_t>(work, 1));
}

// Calls f(begin, end) for the pieces [0, grain), [grain, 2 grain), ... of [0, n). The pieces are
// the same for any number of threads. A single piece, or a call from inside a parallel region, runs
// on the calling thread. f must not throw.
template <class F>
[[gnu::always_inline]] inline void parallel_for(int64_t n, int64_t grain, const F& f) {
  const int64_t pieces = (n + grain - 1) / grain;
  if (pieces <= 1 || omp_in_parallel() || omp_get_max_threads() == 1) {
    for (int64_t i = 0; i < pieces; ++i) f(i * grain, std::min(n, (i + 1) * grain));
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t i = 0; i < pieces; ++i) f(i * grain, std::min(n, (i + 1) * grain));
}

}  // namespace strata
