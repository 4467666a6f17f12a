#include "core/kernels/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <vector>

using namespace strata;

TEST_CASE("parallel_for cuts by the grain and covers every index once") {
  for (const int64_t n : {0, 1, 7, 64, 1000})
    for (const int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
      std::atomic<bool> cut_right{true};
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        if (begin % grain != 0 || end != std::min(n, begin + grain)) cut_right = false;
        for (int64_t i = begin; i < end; ++i) ++seen[size_t(i)];
      });
      CHECK(cut_right);
      for (const auto& count : seen) CHECK(count == 1);
    }
}

TEST_CASE("parallel_for inside a parallel region stays on its thread") {
  std::atomic<int> wrong{0};
  parallel_for(8, 1, [&](int64_t, int64_t) {
    const int outer = omp_get_level();
    parallel_for(8, 1, [&](int64_t, int64_t) {
      if (omp_get_level() != outer) ++wrong;
    });
  });
  if (omp_get_max_threads() > 1) CHECK(wrong == 0);
}
