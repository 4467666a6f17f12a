#include "core/kernels/gemm.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <cmath>
#include <vector>

#include "core/tensor/random.h"

using namespace strata;

namespace {

template <class T>
std::vector<T> random_values(int64_t n, uint64_t seed) {
  Random random(seed, 1);
  std::vector<T> v(static_cast<size_t>(n));
  for (T& x : v) x = T(random.uniform() * 2 - 1);
  return v;
}

template <class T>
struct Case {
  Trans ta, tb;
  int64_t m, n, k, lda, ldb, ldc;
  std::vector<T> a, b, c;
  Case(Trans ta_, Trans tb_, int64_t m_, int64_t n_, int64_t k_, int64_t pad) {
    ta = ta_, tb = tb_, m = m_, n = n_, k = k_;
    const int64_t rows_a = ta == Trans::yes ? k : m, rows_b = tb == Trans::yes ? n : k;
    lda = (ta == Trans::yes ? m : k) + pad;
    ldb = (tb == Trans::yes ? k : n) + pad;
    ldc = n + pad;
    a = random_values<T>(rows_a * lda, 1);
    b = random_values<T>(rows_b * ldb, 2);
    c = random_values<T>(m * ldc, 3);
  }
  // Element (i, j) of alpha op(A) op(B) + beta C, summed in double.
  double expected(double alpha, double beta, int64_t i, int64_t j) const {
    double sum = 0;
    for (int64_t p = 0; p < k; ++p)
      sum += double(ta == Trans::yes ? a[size_t(p * lda + i)] : a[size_t(i * lda + p)]) *
             double(tb == Trans::yes ? b[size_t(j * ldb + p)] : b[size_t(p * ldb + j)]);
    return alpha * sum + (beta == 0 ? 0 : beta * double(c[size_t(i * ldc + j)]));
  }
  // The largest error, relative to the size of a sum of k products; infinite where padding changed.
  double error(const std::vector<T>& result, double alpha, double beta) const {
    double worst = 0;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < ldc; ++j) {
        const double got = double(result[size_t(i * ldc + j)]);
        if (j < n)
          worst = std::max(worst, std::abs(got - expected(alpha, beta, i, j)) / (1 + std::sqrt(k)));
        else if (got != double(c[size_t(i * ldc + j)]))
          return INFINITY;
      }
    return worst;
  }
};

template <class T>
void check_all_shapes(double tolerance) {
  const int64_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},    {1, 67, 130},   {2, 33, 515},
                               {8, 8, 8},     {13, 17, 19}, {64, 32, 128},  {65, 100, 300},
                               {17, 129, 33}, {31, 1, 64},  {1, 300, 1000}, {130, 257, 260}};
  for (const auto& s : shapes)
    for (const Trans ta : {Trans::no, Trans::yes})
      for (const Trans tb : {Trans::no, Trans::yes})
        for (const int64_t pad : {0, 3})
          for (const double beta : {0.0, 1.0, -0.5}) {
            const double alpha = beta == 1.0 ? 1.0 : 0.75;
            const Case<T> problem(ta, tb, s[0], s[1], s[2], pad);
            std::vector<T> c = problem.c;
            gemm<T>(ta, tb, s[0], s[1], s[2], T(alpha), problem.a.data(), problem.lda,
                    problem.b.data(), problem.ldb, T(beta), c.data(), problem.ldc);
            const double error = problem.error(c, alpha, beta);
            INFO("m n k ", s[0], " ", s[1], " ", s[2], " pad ", pad, " beta ", beta);
            CHECK(error < tolerance);
          }
}

}  // namespace

TEST_CASE("gemm agrees with a plain loop at odd sizes, strides and scales, in float") {
  check_all_shapes<float>(2e-6);
}

TEST_CASE("gemm agrees with a plain loop at odd sizes, strides and scales, in double") {
  check_all_shapes<double>(1e-14);
}

TEST_CASE("products above the library threshold agree too") {
  for (const Trans ta : {Trans::no, Trans::yes})
    for (const Trans tb : {Trans::no, Trans::yes})
      for (const double beta : {0.0, 1.0, 0.25}) {
        const Case<float> problem(ta, tb, 513, 510, 520, 5);
        std::vector<float> c = problem.c;
        gemm<float>(ta, tb, 513, 510, 520, 1, problem.a.data(), problem.lda, problem.b.data(),
                    problem.ldb, float(beta), c.data(), problem.ldc);
        CHECK(problem.error(c, 1, beta) < 2e-6);
      }
}

TEST_CASE("beta zero does not read C, and an empty sum only scales it") {
  std::vector<float> a(64, 1), b(64, 1), c(64, NAN);
  gemm<float>(Trans::no, Trans::no, 8, 8, 8, 1, a.data(), 8, b.data(), 8, 0, c.data(), 8);
  for (float x : c) CHECK(x == 8);
  gemm<float>(Trans::no, Trans::no, 8, 8, 0, 1, a.data(), 8, b.data(), 8, 0.5f, c.data(), 8);
  for (float x : c) CHECK(x == 4);
  gemm<float>(Trans::no, Trans::no, 0, 8, 8, 1, a.data(), 8, b.data(), 8, 0, c.data(), 8);
}

TEST_CASE_TEMPLATE("batched and grouped products equal single ones", T, float, double) {
  const int64_t count = 20, m = 9, n = 21, k = 13;
  const auto a = random_values<T>(count * m * k, 1), b = random_values<T>(k * n, 2);
  std::vector<T> one(size_t(count * m * n), T(1)), many = one, grouped = one;
  std::vector<GemmItem<T>> items;
  for (int64_t i = 0; i < count; ++i) {
    gemm<T>(Trans::no, Trans::no, m, n, k, 1, &a[size_t(i * m * k)], k, b.data(), n, 1,
            &one[size_t(i * m * n)], n);
    items.push_back(
        {m, n, k, &a[size_t(i * m * k)], k, b.data(), n, &grouped[size_t(i * m * n)], n});
  }
  gemm_batched<T>(count, Trans::no, Trans::no, m, n, k, 1, a.data(), k, m * k, b.data(), n, 0, 1,
                  many.data(), n, m * n);
  gemm_grouped<T>(count, items.data(), Trans::no, Trans::no, 1, 1);
  CHECK(one == many);
  CHECK(one == grouped);
}

TEST_CASE("inside a parallel region the product is right and stays on its thread") {
  const Case<float> problem(Trans::no, Trans::yes, 200, 220, 230, 0);
  std::vector<std::vector<float>> results(4, problem.c);
#pragma omp parallel for
  for (size_t i = 0; i < 4; ++i)
    gemm<float>(Trans::no, Trans::yes, 200, 220, 230, 1, problem.a.data(), problem.lda,
                problem.b.data(), problem.ldb, 0, results[i].data(), problem.ldc);
  CHECK(problem.error(results[0], 1, 0) < 2e-6);
  for (const auto& r : results) CHECK(r == results[0]);
}
