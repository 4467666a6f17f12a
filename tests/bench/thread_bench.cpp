// How the matmul scales with threads, ours against raw oneDNN's own scaling.
#include <omp.h>

#include "core/kernels/gemm.h"
#include "tests/bench/bench.h"

namespace strata::bench {

std::vector<Row> thread_rows() {
  const int all = omp_get_max_threads();
  const int64_t m = 2048, n = 1024, k = 4096;
  std::vector<float> a(size_t(m * k), 0.5f), b(size_t(n * k), 0.25f), c(size_t(m * n));
  auto ours = [&] {
    gemm<float>(Trans::no, Trans::yes, m, n, k, 1, a.data(), k, b.data(), k, 0, c.data(), n);
  };
  auto raw = matmul_probe();
  auto with = [](int threads, std::function<void()> f) {
    return [=] {
      omp_set_num_threads(threads);
      f();
    };
  };
  const auto t = medians({with(1, ours), with(all, ours), with(1, raw), with(all, raw)});
  omp_set_num_threads(all);
  const double scaling = t[0] / t[1], reference = t[2] / t[3];
  return {{"thread scaling of linear", "1 to " + std::to_string(all) + " threads", scaling,
           reference, "times", "raw oneDNN", scaling / reference, 0.9}};
}

}  // namespace strata::bench
