#include "core/ops/attend.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/io/safetensors.h"
#include "core/ops/attend_workspace.h"
#include "core/tensor/memory.h"
#include "tests/core/ops/attend_naive.h"

#include <omp.h>

using namespace strata;
using namespace strata::test;

namespace {

// q, k, v are slices of one wide row when the lengths agree, as after a fused projection.
template <class T>
Result run(const Case& c, const Numbers& q, const Numbers& k, const Numbers& v,
           const Numbers& dy = {}) {
  const AttendOptions& o = c.options;
  const int64_t q_width = o.n_heads * o.head_dim, kv_width = o.n_kv_heads * o.head_dim;
  Memory memory(Device{}, 64 << 20, 64 << 20);
  Context cx(memory, dtype_of<T>());
  cx.set_recording(!dy.empty());
  Tensor tq, tk, tv;
  if (c.q_len == c.kv_len) {
    const Tensor qkv = cx.track(cx.alloc({c.batch, c.q_len, q_width + 2 * kv_width}));
    tq = cx.columns(qkv, 0, q_width);
    tk = cx.columns(qkv, q_width, kv_width);
    tv = cx.columns(qkv, q_width + kv_width, kv_width);
  } else {
    tq = cx.track(cx.alloc({c.batch, c.q_len, q_width}));
    tk = cx.track(cx.alloc({c.batch, c.kv_len, kv_width}));
    tv = cx.track(cx.alloc({c.batch, c.kv_len, kv_width}));
  }
  put<T>(tq, q), put<T>(tk, k), put<T>(tv, v);
  Tensor ids;
  if (!c.documents.empty()) {
    ids = cx.alloc({c.batch, c.kv_len}, DType::i32);
    for (int64_t i = 0; i < ids.numel(); ++i) ids.ptr<int32_t>()[i] = c.documents[i % c.kv_len];
  }
  const Tensor y = attend(cx, tq, tk, tv, o, ids);
  Result r{get<T>(y), {}, {}, {}};
  if (dy.empty()) return r;
  put<T>(cx.grad_target(y).grad, dy);
  cx.replay(0);
  r.dq = get<T>(cx.grad(tq));
  r.dk = get<T>(cx.grad(tk));
  r.dv = get<T>(cx.grad(tv));
  return r;
}

void check_close(const Result& got, const Result& want, double tolerance) {
  CHECK(relative(got.y, want.y) < tolerance);
  CHECK(relative(got.dq, want.dq) < 2 * tolerance);
  CHECK(relative(got.dk, want.dk) < 2 * tolerance);
  CHECK(relative(got.dv, want.dv) < 2 * tolerance);
}

void check_case(const Case& c) {
  CAPTURE(c.batch);
  CAPTURE(c.q_len);
  CAPTURE(c.kv_len);
  CAPTURE(c.options.n_heads);
  CAPTURE(c.options.n_kv_heads);
  CAPTURE(c.options.head_dim);
  CAPTURE(c.options.window);
  CAPTURE(c.options.softcap);
  CAPTURE(c.options.causal);
  CAPTURE(c.documents.size());
  const Numbers q = random_numbers(c.q_size(), 1), k = random_numbers(c.kv_size(), 2);
  const Numbers v = random_numbers(c.kv_size(), 3), dy = random_numbers(c.q_size(), 4);
  const Result want = naive(c, q, k, v, dy);
  check_close(run<double>(c, q, k, v, dy), want, 1e-12);
  check_close(run<float>(c, q, k, v, dy), want, 1e-5);
}

std::vector<int32_t> documents_of(int64_t len) {  // runs of 1, 2, 3, ... tokens
  std::vector<int32_t> ids;
  for (int32_t id = 0; int64_t(ids.size()) < len; ++id)
    for (int i = 0; i <= id * 3 && int64_t(ids.size()) < len; ++i) ids.push_back(id % 5);
  return ids;
}

}  // namespace

TEST_CASE("attend equals the definition over odd sizes") {
  for (int64_t len : {1, 31, 32, 33, 65, 129}) check_case({2, len, len, {4, 2, 16}, {}});
}

TEST_CASE("attend equals the definition over head counts and widths") {
  for (int64_t dim : {1, 8, 12, 48, 64, 80, 128}) check_case({1, 70, 70, {2, 1, dim}, {}});
  check_case({2, 40, 40, {1, 1, 8}, {}});
  check_case({2, 40, 40, {6, 6, 8}, {}});
  check_case({2, 40, 40, {6, 2, 8}, {}});
  check_case({2, 40, 40, {7, 1, 8}, {}});
}

TEST_CASE("attend equals the definition with windows, caps, scales and no mask") {
  for (int64_t window : {1, 5, 64, 65, 100})
    check_case({1, 150, 150, {2, 1, 8, 0, 0, true, window}, {}});
  check_case({1, 150, 150, {2, 1, 8, 0, 0, false, 70}, {}});
  check_case({2, 90, 90, {2, 2, 8, 0, 0, false}, {}});
  check_case({2, 90, 90, {4, 2, 8, 0.9, 2.0}, {}});
  check_case({2, 90, 90, {4, 2, 8, 0, 30.0, true, 33}, {}});
}

TEST_CASE("attend does not look across documents") {
  check_case({2, 150, 150, {4, 2, 8}, documents_of(150)});
  check_case({2, 150, 150, {4, 2, 8, 0, 0, false}, documents_of(150)});
  check_case({1, 150, 150, {2, 1, 8, 0, 3.0, true, 6}, documents_of(150)});
}

TEST_CASE("the last queries alone attend over all keys") {
  for (int64_t q_len : {1, 3, 64, 100}) check_case({2, q_len, 129, {4, 2, 16}, {}});
  check_case({2, 9, 129, {4, 2, 16, 0, 0, true, 20}, documents_of(129)});
}

TEST_CASE("gradients equal finite differences in double") {
  const Case c{2, 37, 37, {4, 2, 6, 0.8, 4.0, true, 20}, documents_of(37)};
  const Numbers dy = random_numbers(c.q_size(), 4);
  Numbers x[3] = {random_numbers(c.q_size(), 1), random_numbers(c.kv_size(), 2),
                  random_numbers(c.kv_size(), 3)};
  const Result r = run<double>(c, x[0], x[1], x[2], dy);
  const Numbers* grads[3] = {&r.dq, &r.dk, &r.dv};
  const auto loss = [&] {
    const Numbers y = run<double>(c, x[0], x[1], x[2]).y;
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  for (int part = 0; part < 3; ++part) {
    CAPTURE(part);
    const Numbers direction = random_numbers(x[part].size(), 20 + part), at = x[part];
    const double step = 1e-5;
    double ends[2], slope = 0;
    for (int side : {0, 1}) {
      for (size_t i = 0; i < at.size(); ++i)
        x[part][i] = at[i] + (side ? step : -step) * direction[i];
      ends[side] = loss();
    }
    x[part] = at;
    for (size_t i = 0; i < at.size(); ++i) slope += (*grads[part])[i] * direction[i];
    CHECK((ends[1] - ends[0]) / (2 * step) == doctest::Approx(slope).epsilon(1e-7));
  }
}

TEST_CASE("attend matches the reference values") {
  const Safetensors file(STRATA_SOURCE_DIR "/tests/golden/ops/attention.safetensors");
  const auto values = [&](const std::string& name) { return values_of(file.at(name)); };
  for (const std::string prefix : {"", "scale.", "tail.", "window."}) {
    CAPTURE(prefix);
    const std::vector<int64_t> shape = file.at(prefix + "y").shape;
    Case c{2, shape[1], 11, {6, 2, 8}, {}};
    if (prefix == "scale.") c.options.scale = 0.07;
    if (prefix == "window.") c.options.window = 4;
    Numbers q = values("in.q");
    if (c.q_len < 11) {  // the last queries of each sequence
      const Numbers all = q;
      q.clear();
      for (int b = 0; b < 2; ++b)
        for (int64_t i = (11 - c.q_len) * 48; i < 11 * 48; ++i) q.push_back(all[b * 11 * 48 + i]);
    }
    Result want{values(prefix + "y"), values(prefix + "grad.q"), values(prefix + "grad.k"),
                values(prefix + "grad.v")};
    const Numbers k = values("in.k"), v = values("in.v"), dy = values(prefix + "cotangent.y");
    if (want.dq.size() != q.size()) {  // the file has zeros for the queries that took no part
      const Numbers all = want.dq;
      want.dq.clear();
      for (int b = 0; b < 2; ++b)
        for (int64_t i = (11 - c.q_len) * 48; i < 11 * 48; ++i)
          want.dq.push_back(all[b * 11 * 48 + i]);
    }
    check_close(run<double>(c, q, k, v, dy), want, 1e-11);
    check_close(run<float>(c, q, k, v, dy), want, 1e-5);
  }
}

TEST_CASE("the bits of attention do not depend on the number of threads") {
  const int threads = omp_get_max_threads();
  const Case c{
      1, 700, 700, {4, 1, 16}, {}};  // one key-value head: 2 threads take other paths than 1
  const Numbers q = random_numbers(c.q_size(), 1), k = random_numbers(c.kv_size(), 2);
  const Numbers v = random_numbers(c.kv_size(), 3), dy = random_numbers(c.q_size(), 4);
  omp_set_num_threads(1);
  const Result one = run<float>(c, q, k, v, dy);
  omp_set_num_threads(3);
  const Result three = run<float>(c, q, k, v, dy);
  omp_set_num_threads(threads);
  CHECK(one.y == three.y);
  CHECK(one.dq == three.dq);
  CHECK(one.dk == three.dk);
  CHECK(one.dv == three.dv);
}

TEST_CASE("a NaN in the keys reaches the output") {
  const Case c{1, 20, 20, {1, 1, 8}, {}};
  Numbers k = random_numbers(c.kv_size(), 2);
  k[3] = NAN;
  const Numbers y =
      run<float>(c, random_numbers(c.q_size(), 1), k, random_numbers(c.kv_size(), 3)).y;
  CHECK(std::isnan(y.back()));
}

TEST_CASE("memory of attention is linear in the sequence length") {
  const auto bytes = [](int64_t len, bool backward) {
    AttendArgs args;
    args.q.shape = args.k.shape = args.v.shape = {1, len, 16 * 64};
    args.k.present = true;
    args.options = {16, 16, 64};
    return attend_workspace_bytes(args, backward);
  };
  CHECK(bytes(65536, false) == bytes(1024, false));
  CHECK(bytes(65536, true) <= 64 * bytes(1024, true));
  CHECK(bytes(65536, true) < 65536 * 64 * 4 * 3);
}

TEST_CASE("wrong widths are refused with the expected width") {
  Memory memory{Device{}};
  Context cx(memory, DType::f32);
  const Tensor q = cx.alloc({1, 4, 32}), k = cx.alloc({1, 4, 16});
  const auto text = [&](Tensor k, Tensor v, AttendOptions o) -> std::string {
    try {
      attend(cx, q, k, v, o, Tensor{});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(text(k, k, {4, 2, 8}) == "");
  CHECK(text(k, k, {4, 3, 8}).find("n_kv_heads must divide n_heads") != std::string::npos);
  CHECK(text(k, k, {4, 1, 8}).find("head_dim = 8") != std::string::npos);
  CHECK(text(k, q, {4, 2, 8}).find("v must be as k, (1, 4, 16), got (1, 4, 32)") !=
        std::string::npos);
}
