#include "core/ops/attend.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/io/safetensors.h"
#include "core/ops/attend_workspace.h"
#include "core/tensor/memory.h"
#include "core/tensor/random.h"
#include "tests/core/ops/test_pass.h"

#include <omp.h>

using namespace strata;

namespace {

using Numbers = std::vector<double>;

Numbers random_numbers(int64_t n, uint64_t stream, double size = 1) {
  Random random(11, stream);
  Numbers x(n);
  for (double& e : x) e = size * random.normal();
  return x;
}

// Sizes of a case; documents lists the id of each key position, for every sequence alike.
struct Case {
  int64_t batch, q_len, kv_len;
  AttendOptions options;
  std::vector<int32_t> documents;
  int64_t q_size() const { return batch * q_len * options.n_heads * options.head_dim; }
  int64_t kv_size() const { return batch * kv_len * options.n_kv_heads * options.head_dim; }
};

struct Result {
  Numbers y, dq, dk, dv;
};

// The definition, one query at a time; with dy also the gradients.
Result naive(const Case& c, const Numbers& q, const Numbers& k, const Numbers& v,
             const Numbers& dy = {}) {
  const AttendOptions& o = c.options;
  const int64_t group = o.n_heads / o.n_kv_heads, dim = o.head_dim;
  const double scale = o.scale ? o.scale : 1 / std::sqrt(double(dim));
  Result r{Numbers(q.size()), Numbers(q.size()), Numbers(k.size()), Numbers(v.size())};
  Numbers p(c.kv_len), slope(c.kv_len), dp(c.kv_len);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t t = 0; t < c.q_len; ++t)
      for (int64_t h = 0; h < o.n_heads; ++h) {
        const int64_t at = ((b * c.q_len + t) * o.n_heads + h) * dim, pos = c.kv_len - c.q_len + t;
        const auto kv = [&](int64_t j) {
          return ((b * c.kv_len + j) * o.n_kv_heads + h / group) * dim;
        };
        double top = -1e300, total = 0;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          bool sees =
              (!o.causal || j <= pos) && (!o.window || (pos - j < o.window && j - pos < o.window));
          for (int64_t i = std::min(j, pos); !c.documents.empty() && i < std::max(j, pos); ++i)
            sees = sees && c.documents[i] == c.documents[i + 1];
          double s = 0;
          for (int64_t d = 0; d < dim; ++d) s += q[at + d] * k[kv(j) + d];
          s *= scale;
          slope[j] = scale;
          if (o.softcap > 0) {
            const double th = std::tanh(s / o.softcap);
            s = o.softcap * th;
            slope[j] *= 1 - th * th;
          }
          p[j] = sees ? s : -INFINITY;
          top = std::max(top, p[j]);
        }
        for (double& e : p) total += (e = std::exp(e - top));
        double delta = 0;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          p[j] /= total;
          dp[j] = 0;
          for (int64_t d = 0; d < dim; ++d) {
            r.y[at + d] += p[j] * v[kv(j) + d];
            if (!dy.empty()) dp[j] += dy[at + d] * v[kv(j) + d];
          }
          delta += p[j] * dp[j];
        }
        if (dy.empty()) continue;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          const double ds = p[j] * (dp[j] - delta) * slope[j];
          for (int64_t d = 0; d < dim; ++d) {
            r.dv[kv(j) + d] += p[j] * dy[at + d];
            r.dk[kv(j) + d] += ds * q[at + d];
            r.dq[at + d] += ds * k[kv(j) + d];
          }
        }
      }
  return r;
}

template <class T>
void put(Tensor x, const Numbers& values) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t i = 0; i < x.cols(); ++i) x.row<T>(r)[i] = T(values[r * x.cols() + i]);
}
template <class T>
Numbers get(Tensor x) {
  Numbers values;
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t i = 0; i < x.cols(); ++i) values.push_back(x.row<T>(r)[i]);
  return values;
}

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

double relative(const Numbers& got, const Numbers& want) {
  REQUIRE(got.size() == want.size());
  double error = 0, size = 0.1;  // a gradient may be zero
  for (size_t i = 0; i < got.size(); ++i) {
    error = std::max(error, std::abs(got[i] - want[i]));
    if (std::isnan(got[i])) error = INFINITY;
    size = std::max(size, std::abs(want[i]));
  }
  return error / size;
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
  test::TestPass pass(c.batch, c.kv_len);
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
  test::TestPass pass(1);
  const Tensor x = cx.alloc({1, 2, 8});
  pass.begin(Mode::prefill);
  CHECK_THROWS_AS(attend(cx, x, x, x, {1, 1, 8, 0, 0, false}, pass), Error);
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
