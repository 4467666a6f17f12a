// Reductions must not depend on the number of threads: the same bits with 1, 2 and 3.
#include <omp.h>

#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/decay_scan.h"
#include "core/ops/embedding.h"
#include "core/ops/gather.h"
#include "core/ops/rms_norm.h"
#include "core/ops/softmax.h"
#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

static Tensor ids(Context& cx, int64_t rows, int64_t n) {
  Tensor t = cx.alloc({2, rows / 2}, DType::i32);
  if (!cx.planning())
    for (int64_t i = 0; i < rows; ++i) t.ptr<int32_t>()[i] = int32_t(i * i % n);
  return t;
}

TEST_CASE("operations: the same bits with 1, 2 and 3 threads") {
  const int64_t rows = 600, d = 90;  // enough to fork, in odd pieces
  const Shape x{2, rows / 2, d};
  TestPass pass(2);
  auto vec = [](Context& cx, Tensor t) { return cx.reshape(t, {t.numel()}); };
  struct Case {
    const char* name;
    std::vector<Shape> shapes;
    Build build;
  };
  const Case cases[] = {
      {"rms_norm",
       {x, {1, d}},
       [&](auto& cx, auto& in) { return rms_norm(cx, in[0], vec(cx, in[1])); }},
      {"gated_rms_norm",
       {x, x, {1, d}},
       [&](auto& cx, auto& in) {
         return gated_rms_norm(cx, in[0], in[1], vec(cx, in[2]), {.group = 30});
       }},
      {"layer_norm",
       {x, {1, d}, {1, d}},
       [&](auto& cx, auto& in) { return layer_norm(cx, in[0], vec(cx, in[1]), vec(cx, in[2])); }},
      {"mul", {x, {1, d}}, [&](auto& cx, auto& in) { return mul(cx, in[0], vec(cx, in[1])); }},
      {"add one", {x, {1, 1}}, [&](auto& cx, auto& in) { return add(cx, in[0], vec(cx, in[1])); }},
      {"softmax", {x}, [&](auto& cx, auto& in) { return softmax(cx, silu(cx, in[0])); }},
      {"causal_conv1d",
       {x, {d, 1, 4}, {1, d}},
       [&](auto& cx, auto& in) {
         return causal_conv1d(cx, in[0], in[1], vec(cx, in[2]), pass, {.silu = true});
       }},
      {"decay_scan",
       {{2, rows / 2, 9}, {2, rows / 2, 9, 10}},
       [&](auto& cx, auto& in) { return decay_scan(cx, sigmoid(cx, in[0]), in[1], pass); }},
      {"decay_scan_outer",
       {{2, rows / 2, 3}, {2, rows / 2, 3, 8}, {2, rows / 2, 3, 12}},
       [&](auto& cx, auto& in) {
         return decay_scan_outer(cx, sigmoid(cx, in[0]), in[1], in[2], in[1], pass);
       }},
      {"embedding",
       {{50, d}},
       [&](auto& cx, auto& in) { return embedding(cx, ids(cx, rows, 50), in[0]); }},
      {"scatter_add",
       {x},
       [&](auto& cx, auto& in) { return scatter_add(cx, in[0], ids(cx, rows, 50), 50); }},
  };
  const int before = omp_get_max_threads();
  for (const Case& c : cases) {
    INFO(c.name);
    std::vector<std::vector<double>> in;
    for (size_t n = 0; n < c.shapes.size(); ++n) {
      Random draw(5 + n, 11);
      in.emplace_back();
      for (int64_t i = 0; i < c.shapes[n].numel(); ++i) in[n].push_back(draw.normal());
    }
    GradRun first;
    for (int threads : {1, 2, 3}) {
      omp_set_num_threads(threads);
      const GradRun run = run_once(c.shapes, c.build, DType::f32, in, false, 1, true, {});
      if (threads == 1) first = run;
      CHECK(difference(run.y, first.y) == 0);
      for (size_t n = 0; n < in.size(); ++n) CHECK(difference(run.grads[n], first.grads[n]) == 0);
    }
  }
  omp_set_num_threads(before);
}
