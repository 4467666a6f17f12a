// attend over the pages of a cache: prefill in chunks and one-token steps.
#include <doctest/doctest.h>

#include "core/tensor/memory.h"
#include "tests/core/ops/attend_naive.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

namespace {

// Prefill in chunks of the given lengths (1: a decode step) gives the rows of the full forward.
template <class T>
void check_pages(const AttendOptions& o, const std::vector<int64_t>& chunks, double tolerance) {
  Case c{3, 0, 0, o, {}};
  for (int64_t n : chunks) c.kv_len = c.q_len += n;
  const int64_t q_width = o.n_heads * o.head_dim, kv_width = o.n_kv_heads * o.head_dim;
  const Numbers q = random_numbers(c.q_size(), 1), k = random_numbers(c.kv_size(), 2);
  const Numbers v = random_numbers(c.kv_size(), 3), want = naive(c, q, k, v).y;
  Memory memory(Device{}, 64 << 20, 64 << 20);
  Context cx(memory, dtype_of<T>());
  TestPass pass(c.batch, c.kv_len);
  int64_t before = 0, last = 0;
  for (int64_t n : chunks) {
    const auto part = [&](const Numbers& all, int64_t width) {
      Tensor x = cx.alloc({c.batch, n, width});
      for (int64_t b = 0; b < c.batch; ++b)
        for (int64_t i = 0; i < n * width; ++i)
          x.ptr<T>()[b * n * width + i] = T(all[(b * c.kv_len + before) * width + i]);
      return x;
    };
    pass.begin(n == 1 ? Mode::decode : Mode::prefill, last);
    const Tensor y = attend(cx, part(q, q_width), part(k, kv_width), part(v, kv_width), o, pass);
    Numbers expected;
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t i = 0; i < n * q_width; ++i)
        expected.push_back(want[(b * c.kv_len + before) * q_width + i]);
    CAPTURE(before);
    CAPTURE(n);
    CHECK(relative(get<T>(y), expected) < tolerance);
    before += n;
    last = n;
  }
}

}  // namespace

TEST_CASE("prefill in chunks and one-token steps over pages equal the full forward") {
  const std::vector<int64_t> steps{1, 1, 1}, mixed{63, 1, 1, 1, 70, 1, 129, 1, 1},
      deep{700, 1, 3, 1};
  for (const auto& chunks : {steps, mixed, deep})
    for (const AttendOptions& o :
         {AttendOptions{4, 2, 16}, AttendOptions{3, 1, 12, 0.5}, AttendOptions{2, 2, 80, 0, 5.0},
          AttendOptions{4, 4, 8, 0, 0, true, 1}, AttendOptions{5, 1, 5, 0, 2.0, true, 66}}) {
      CAPTURE(o.n_heads);
      CAPTURE(o.head_dim);
      CAPTURE(o.window);
      check_pages<double>(o, chunks, 1e-12);
      check_pages<float>(o, chunks, 1e-5);
    }
}

TEST_CASE("attention without a causal mask cannot decode") {
  Memory memory(Device{}, 1 << 20, 4 << 20);
  Context cx(memory, DType::f32);
  TestPass pass(1);
  const Tensor x = cx.alloc({1, 2, 8});
  pass.begin(Mode::prefill);
  CHECK_THROWS_AS(attend(cx, x, x, x, {1, 1, 8, 0, 0, false}, pass), Error);
}
