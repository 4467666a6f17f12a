// linear against raw oneDNN and Eigen, forward and both gradients.
#include <Eigen/Core>
#include <cstdio>
#include <dnnl.hpp>
#include <memory>

#include "core/kernels/gemm.h"
#include "tests/bench/bench.h"

namespace strata::bench {

using dnnl::memory;

// y(m, n) = a(m, k) b(n, k)^T and the other two transposes, as a prepared oneDNN primitive.
static std::function<void()> raw_onednn(int64_t m, int64_t n, int64_t k, bool transpose_a,
                                        bool transpose_b, const float* a, const float* b,
                                        float* c) {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  static dnnl::stream stream(engine);
  const memory::dims sa = transpose_a ? memory::dims{1, m} : memory::dims{k, 1};
  const memory::dims sb = transpose_b ? memory::dims{1, k} : memory::dims{n, 1};
  memory::desc da({m, k}, memory::data_type::f32, sa), db({k, n}, memory::data_type::f32, sb),
      dc({m, n}, memory::data_type::f32, memory::dims{n, 1});
  auto matmul = std::make_shared<dnnl::matmul>(
      dnnl::matmul::primitive_desc(dnnl::matmul::desc(da, db, dc), engine));
  memory ma(da, engine, const_cast<float*>(a)), mb(db, engine, const_cast<float*>(b)),
      mc(dc, engine, c);
  return [=]() mutable {
    matmul->execute(stream, {{DNNL_ARG_SRC, ma}, {DNNL_ARG_WEIGHTS, mb}, {DNNL_ARG_DST, mc}});
    stream.wait();
  };
}

static std::vector<float> numbers(int64_t n) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float((i * 7919 % 1000) / 1000.0 - 0.5);
  return x;
}

std::function<void()> matmul_probe() {
  auto a = std::make_shared<std::vector<float>>(numbers(2048 * 4096));
  auto b = std::make_shared<std::vector<float>>(numbers(1024 * 4096));
  auto c = std::make_shared<std::vector<float>>(2048 * 1024);
  auto run = raw_onednn(2048, 1024, 4096, false, true, a->data(), b->data(), c->data());
  return [=] {
    run();
    (void)a, (void)b, (void)c;
  };
}

std::vector<Row> linear_rows() {
  std::vector<Row> rows;
  struct Shape {
    int64_t m, n, k;
  };
  for (const Shape s : {Shape{4096, 64, 256}, {2048, 1024, 4096}, {256, 4096, 1024}}) {
    const auto x = numbers(s.m * s.k), w = numbers(s.n * s.k), dy = numbers(s.m * s.n);
    std::vector<float> y(size_t(s.m * s.n)), dx(size_t(s.m * s.k)), dw(size_t(s.n * s.k));
    const auto times = medians({
        [&] {
          gemm<float>(Trans::no, Trans::yes, s.m, s.n, s.k, 1, x.data(), s.k, w.data(), s.k, 0,
                      y.data(), s.n);
        },
        raw_onednn(s.m, s.n, s.k, false, true, x.data(), w.data(), y.data()),
        [&] {
          gemm<float>(Trans::no, Trans::no, s.m, s.k, s.n, 1, dy.data(), s.n, w.data(), s.k, 0,
                      dx.data(), s.k);
        },
        raw_onednn(s.m, s.k, s.n, false, false, dy.data(), w.data(), dx.data()),
        [&] {
          gemm<float>(Trans::yes, Trans::no, s.n, s.k, s.m, 1, dy.data(), s.n, x.data(), s.k, 1,
                      dw.data(), s.k);
        },
        raw_onednn(s.n, s.k, s.m, true, false, dy.data(), x.data(), dw.data()),
    });
    const double flops = 2.0 * double(s.m) * double(s.n) * double(s.k) / 1e9;
    char shape[64];
    std::snprintf(shape, sizeof shape, "%ld x %ld x %ld", long(s.m), long(s.n), long(s.k));
    const char* names[] = {"linear forward", "linear dx", "linear dW (accumulated)"};
    for (int i = 0; i < 3; ++i)
      rows.push_back({names[i], shape, flops / times[2 * i], flops / times[2 * i + 1], "GFLOP/s",
                      "raw oneDNN", times[2 * i + 1] / times[2 * i], 0.9});
  }
  for (const Shape s : {Shape{8, 8, 8}, {64, 64, 64}, {64, 32, 128}, {1, 256, 256}}) {
    const auto x = numbers(s.m * s.k), w = numbers(s.n * s.k);
    std::vector<float> y(size_t(s.m * s.n)), z(y);
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<const Matrix> mx(x.data(), s.m, s.k), mw(w.data(), s.n, s.k);
    Eigen::Map<Matrix> mz(z.data(), s.m, s.n);
    const auto times = medians({
        [&] {
          gemm<float>(Trans::no, Trans::yes, s.m, s.n, s.k, 1, x.data(), s.k, w.data(), s.k, 0,
                      y.data(), s.n);
        },
        [&] { mz.noalias() = mx * mw.transpose(); },
    });
    const double flops = 2.0 * double(s.m) * double(s.n) * double(s.k) / 1e9;
    char shape[64];
    std::snprintf(shape, sizeof shape, "%ld x %ld x %ld", long(s.m), long(s.n), long(s.k));
    rows.push_back({"linear forward, small", shape, flops / times[0], flops / times[1], "GFLOP/s",
                    "Eigen", times[1] / times[0], 1.0});
  }
  return rows;
}

}  // namespace strata::bench
