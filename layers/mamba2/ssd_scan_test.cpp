// The chunked scan against golden references, against the recurrence, and against finite
// differences. The kernels are reached through the registry, as the layer reaches them.
#include "layers/mamba2/ssd_scan.h"

#include <omp.h>

#include <algorithm>

#include "core/ops/named_op.h"
#include "layers/mamba2/ssd_layout.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/golden.h"

using namespace strata;
using namespace strata::mamba2;
using namespace strata::test;

namespace {

void load_mamba2() {
  static const std::unique_ptr<Layer> kept =
      Registry().create("mamba2", LayerConfig(64, 1, {}, "test"));
}

// All tensors of one scan, in the memory of a bench.
struct Problem {
  Bench bench;
  SsdScanArgs a;

  Problem(DType type, int64_t batch, int64_t seq_len, const SsdScanOptions& o)
      : bench(type, size_t{256} << 20) {
    load_mamba2();
    a.options = o;
    a.threads = omp_get_max_threads();
    a.x = bench.random({batch, seq_len, o.n_heads * o.head_dim}, 1);
    a.dt = bench.random({batch, seq_len, o.n_heads}, 2);
    a.b = bench.random({batch, seq_len, o.n_groups * o.d_state}, 3);
    a.c = bench.random({batch, seq_len, o.n_groups * o.d_state}, 4);
    a.a_log = bench.random({o.n_heads}, 5);
    a.d = bench.random({o.n_heads}, 6);
    a.dt_bias = bench.random({o.n_heads}, 7);
    a.initial_state = bench.random({batch, o.n_heads, o.head_dim, o.d_state}, 8);
    a.final_state = bench.random(a.initial_state.shape, 9);
    a.y = bench.random(a.x.shape, 10);
  }
  // Documents of uneven lengths, other ones in every row, also at chunk boundaries.
  void add_documents() {
    const int64_t batch = a.x.shape[0], seq_len = a.x.shape[1];
    std::vector<int32_t> ids;
    for (int64_t b = 0; b < batch; ++b) {
      int32_t id = 0;
      for (int64_t t = 0; t < seq_len; ++t) {
        if (t > 0 && (t % 16 == 0 || (t * t + b) % 11 == 3)) ++id;
        ids.push_back(id);
      }
    }
    a.seq_idx = bench.ints({batch, seq_len}, ids);
  }
  void workspace(bool backward) {
    const int64_t bytes = a.x.dtype == DType::f64 ? SsdWorkspace<double>(a, backward, nullptr).bytes
                                                  : SsdWorkspace<float>(a, backward, nullptr).bytes;
    a.workspace = bench.cx.alloc({bytes}, DType::u8);
  }
  void run(const char* op) {
    workspace(false);
    Op<SsdScanArgs>{op}(bench.cx, a.x.dtype, a);
  }
  SsdScanBackwardArgs backward() {
    SsdScanBackwardArgs g;
    workspace(true);
    g.forward = a;
    g.dy = bench.random(a.y.shape, 20);
    g.dfinal_state = bench.random(a.final_state.shape, 21);
    const auto to = [&](Tensor t) { return GradTarget{bench.random(t.shape, 22), true, false}; };
    g.dx = to(a.x), g.ddt = to(a.dt), g.db = to(a.b), g.dc = to(a.c), g.da_log = to(a.a_log);
    g.dd = to(a.d), g.ddt_bias = to(a.dt_bias), g.dinitial_state = to(a.initial_state);
    return g;
  }
  void run(const SsdScanBackwardArgs& g) {
    Op<SsdScanBackwardArgs>{"ssd_scan_backward"}(bench.cx, a.x.dtype, g);
  }
};

SsdScanOptions shape_of(int64_t heads, int64_t dim, int64_t groups, int64_t state, int64_t chunk,
                        bool neg_eig = false) {
  SsdScanOptions o;
  o.n_heads = heads, o.head_dim = dim, o.n_groups = groups, o.d_state = state;
  o.chunk_size = chunk, o.neg_eig = neg_eig;
  return o;
}

}  // namespace

TEST_CASE("ssd_scan: golden outputs, states and gradients") {
  const Golden golden("ssd_scan");
  const struct {
    const char* prefix;
    bool initial;
    double low, high;
  } variants[] = {
      {"", true, 0, INFINITY}, {"zero_state.", false, 0, INFINITY}, {"clamped.", true, 0.05, 0.6}};
  for (const auto& v : variants)
    for (const int64_t chunk : {16, 128})
      for (const DType type : {DType::f64, DType::f32}) {
        const Shape x = golden.shape("in.x"), b = golden.shape("in.B");
        SsdScanOptions o = shape_of(x[2], x[3], b[2], b[3], chunk);
        o.dt_min = v.low, o.dt_max = v.high;
        Problem p(type, x[0], x[1], o);
        const auto fill = [&](Tensor& t, const std::string& name) {
          const auto value = golden.values(name);
          for (int64_t i = 0; i < t.numel(); ++i) set(t, i, value[size_t(i)]);
        };
        fill(p.a.x, "in.x"), fill(p.a.dt, "in.dt_raw"), fill(p.a.b, "in.B"), fill(p.a.c, "in.C");
        fill(p.a.a_log, "in.A_log"), fill(p.a.d, "in.D"), fill(p.a.dt_bias, "in.dt_bias");
        fill(p.a.initial_state, "in.initial_state");
        if (!v.initial) p.a.initial_state = {};
        const std::string at = v.prefix;
        const double tolerance = type == DType::f64 ? 1e-11 : 1e-5;
        for (const char* op : {"ssd_step", "ssd_scan"}) {
          p.run(op);
          golden.close(p.a.y, at + "y", tolerance);
          golden.close(p.a.final_state, at + "final_state", tolerance);
        }
        if (!v.initial) p.a.initial_state = {};
        SsdScanBackwardArgs g = p.backward();
        if (!v.initial) g.dinitial_state = {};
        fill(g.dy, at + "cotangent.y"), fill(g.dfinal_state, at + "cotangent.final_state");
        p.run(g);
        const std::pair<const GradTarget*, const char*> grads[] = {
            {&g.dx, "x"},
            {&g.ddt, "dt_raw"},
            {&g.db, "B"},
            {&g.dc, "C"},
            {&g.dd, "D"},
            {&g.da_log, "A_log"},
            {&g.ddt_bias, "dt_bias"},
            {&g.dinitial_state, "initial_state"}};
        for (const auto& [target, name] : grads)
          if (target->wanted) golden.close(target->grad, at + "grad." + name, tolerance * 10);
      }
}

TEST_CASE("ssd_scan: chunks equal the recurrence at odd sizes, with documents and carried state") {
  const SsdScanOptions shapes[] = {shape_of(1, 1, 1, 1, 16), shape_of(4, 6, 2, 8, 16),
                                   shape_of(8, 5, 8, 7, 32, true), shape_of(6, 3, 1, 17, 128),
                                   shape_of(3, 64, 1, 33, 64, true)};
  for (const SsdScanOptions& o : shapes)
    for (const int64_t seq_len : {1, 5, 16, 37, 150})
      for (const bool documents : {false, true})
        for (const DType type : {DType::f64, DType::f32}) {
          INFO("heads ", o.n_heads, " tokens ", seq_len, " documents ", documents);
          Problem p(type, 3, seq_len, o);
          if (documents) p.add_documents();
          p.run("ssd_step");
          const auto y = values(p.a.y), state = values(p.a.final_state);
          p.run("ssd_scan");
          const double tolerance = type == DType::f64 ? 1e-13 : 2e-6;
          CHECK(difference(values(p.a.y), y) <= tolerance * (1 + largest(y)));
          CHECK(difference(values(p.a.final_state), state) <= tolerance * (1 + largest(state)));
        }
}

TEST_CASE("ssd_scan: the state of a sequence is read from its slot and written back") {
  const SsdScanOptions o = shape_of(4, 6, 2, 8, 16);
  Problem whole(DType::f64, 2, 40, o), part(DType::f64, 2, 40, o);
  whole.a.initial_state = {};
  whole.run("ssd_scan");
  const int64_t size = o.n_heads * o.head_dim * o.d_state;
  std::vector<double> slots(size_t(5 * size), 0.0);
  const int32_t places[] = {3, 1};
  SsdScanArgs a = part.a;
  a.initial_state = a.final_state = {};
  a.state = {slots.data(), size * 8, places};
  int64_t done = 0;
  for (const int64_t n : {23, 1, 16}) {  // rows of a batch are cut with a pitch, one row at a time
    for (int64_t b = 0; b < 2; ++b) {
      part.a = a;
      const auto cut = [&](Tensor t) {
        t.data = t.row<double>(b * 40 + done);
        t.shape[0] = 1, t.shape[1] = n;
        return t;
      };
      part.a.x = cut(a.x), part.a.dt = cut(a.dt), part.a.b = cut(a.b), part.a.c = cut(a.c);
      part.a.y = cut(a.y);
      part.a.state.slots = places + b;
      part.run(n == 1 ? "ssd_step" : "ssd_scan");
    }
    done += n;
  }
  CHECK(difference(values(a.y), values(whole.a.y)) < 1e-12);
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t i = 0; i < size; ++i)
      CHECK(slots[size_t(places[b] * size + i)] ==
            doctest::Approx(get(whole.a.final_state, b * size + i)).epsilon(1e-10));
  for (const int other : {0, 2, 4})
    for (int64_t i = 0; i < size; ++i) REQUIRE(slots[size_t(other * size + i)] == 0);
}

TEST_CASE("ssd_scan: gradients against finite differences, documents, groups and signs") {
  const struct {
    SsdScanOptions o;
    int64_t batch, seq_len;
    bool documents;
  } cases[] = {{shape_of(4, 3, 2, 5, 16), 2, 21, true},
               {shape_of(8, 2, 8, 3, 16, true), 1, 35, true},
               {shape_of(12, 2, 1, 3, 16, true), 2, 40, false},
               {shape_of(2, 3, 1, 4, 128), 1, 70, false}};
  for (const auto& test : cases) {
    Problem p(DType::f64, test.batch, test.seq_len, test.o);
    p.a.options.dt_min = 0.2;  // some tokens at the limit
    if (test.documents) p.add_documents();
    const SsdScanBackwardArgs g = p.backward();
    p.run(g);
    p.workspace(false);
    const auto loss = [&] {
      Op<SsdScanArgs>{"ssd_scan"}(p.bench.cx, DType::f64, p.a);
      double sum = 0;
      for (int64_t i = 0; i < p.a.y.numel(); ++i) sum += get(p.a.y, i) * get(g.dy, i);
      for (int64_t i = 0; i < p.a.final_state.numel(); ++i)
        sum += get(p.a.final_state, i) * get(g.dfinal_state, i);
      return sum;
    };
    const std::pair<Tensor, GradTarget> inputs[] = {{p.a.x, g.dx},
                                                    {p.a.dt, g.ddt},
                                                    {p.a.b, g.db},
                                                    {p.a.c, g.dc},
                                                    {p.a.d, g.dd},
                                                    {p.a.a_log, g.da_log},
                                                    {p.a.dt_bias, g.ddt_bias},
                                                    {p.a.initial_state, g.dinitial_state}};
    for (const auto& [in, target] : inputs)
      for (int64_t i = 0; i < in.numel(); i += 1 + in.numel() / 25) {
        const double x = get(in, i), h = 1e-5;
        set(in, i, x + h);
        const double up = loss();
        set(in, i, x - h);
        const double down = loss();
        set(in, i, x);
        const double numeric = (up - down) / (2 * h);
        INFO("shape ", to_string(in.shape), " element ", i);
        CHECK(std::abs(get(target.grad, i) - numeric) < 2e-7 * (1 + std::abs(numeric)));
      }
  }
}

TEST_CASE(
    "ssd_scan: a decay of exactly zero or minus one, and large steps, stay finite and exact") {
  SsdScanOptions o = shape_of(2, 4, 1, 6, 16, true);
  Problem p(DType::f32, 1, 50, o);
  for (int64_t i = 0; i < p.a.dt.numel(); ++i)
    set(p.a.dt, i, i % 7 == 0 ? 60 : i % 5 == 0 ? -60 : get(p.a.dt, i));
  p.run("ssd_step");
  const auto y = values(p.a.y);
  p.run("ssd_scan");
  CHECK(difference(values(p.a.y), y) <= 1e-5 * largest(y));
  const SsdScanBackwardArgs g = p.backward();
  p.run(g);
  for (const GradTarget* t : {&g.dx, &g.ddt, &g.db, &g.dc, &g.da_log, &g.dinitial_state})
    CHECK(std::isfinite(largest(values(t->grad))));
}

TEST_CASE("ssd_scan: gradients are added where that is asked, and left alone where unwanted") {
  Problem p(DType::f64, 2, 40, shape_of(8, 3, 1, 5, 16));
  SsdScanBackwardArgs g = p.backward();
  p.run(g);
  GradTarget* targets[] = {&g.dx,     &g.ddt, &g.db,       &g.dc,
                           &g.da_log, &g.dd,  &g.ddt_bias, &g.dinitial_state};
  std::vector<std::vector<double>> once;
  for (GradTarget* t : targets) {
    once.push_back(values(t->grad));
    t->accumulate = true;
  }
  p.run(g);
  for (size_t n = 0; n < once.size(); ++n) {
    const auto twice = values(targets[n]->grad);
    for (size_t i = 0; i < twice.size(); ++i)
      CHECK(twice[i] == doctest::Approx(2 * once[n][i]).epsilon(1e-12));
  }
  for (size_t n = 0; n < once.size(); ++n) {
    const auto before = values(targets[n]->grad);
    targets[n]->wanted = false;
    p.run(g);
    CHECK(values(targets[n]->grad) == before);
    targets[n]->wanted = true;
  }
}

TEST_CASE("ssd_scan: the number of threads changes no bit") {
  const int before = omp_get_max_threads();
  std::vector<std::vector<double>> first;
  for (const int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    Problem p(DType::f32, 2, 300, shape_of(8, 32, 2, 32, 64));
    p.run("ssd_scan");
    const SsdScanBackwardArgs g = p.backward();
    p.run(g);
    const std::vector<std::vector<double>> now = {
        values(p.a.y),     values(g.dx.grad), values(g.ddt.grad),   values(g.db.grad),
        values(g.dc.grad), values(g.dd.grad), values(g.da_log.grad)};
    if (threads == 1) first = now;
    CHECK(now == first);
  }
  omp_set_num_threads(before);
}

TEST_CASE("ssd_scan: a gradient may reach the final state alone") {
  load_mamba2();
  const auto gradient_of_x = [](bool zeros_reach_y) {
    Bench bench(DType::f64);
    Context& cx = bench.cx;
    cx.set_recording(true);
    const Tensor x = cx.track(bench.random({2, 5, 4, 3}, 1));
    NamedCall call{cx, {}, {}, {}};
    call.in = {{"x", x},
               {"dt_raw", bench.random({2, 5, 4}, 2)},
               {"B", bench.random({2, 5, 2, 6}, 3)},
               {"C", bench.random({2, 5, 2, 6}, 4)},
               {"A_log", bench.random({4}, 5)}};
    find_named_op("ssd_scan")(call);
    const Tensor y = call.out.at("y"), state = call.out.at("final_state");
    cx.set_grad(state, bench.random(state.shape, 6));
    if (zeros_reach_y) cx.zero(cx.grad_target(y).grad);
    cx.replay(0);
    const Tensor dx = cx.grad(x);
    std::vector<double> values;
    for (int64_t i = 0; i < dx.numel(); ++i) values.push_back(dx.ptr<double>()[i]);
    return values;
  };
  const std::vector<double> alone = gradient_of_x(false);
  CHECK(alone.size() == 2 * 5 * 4 * 3);
  CHECK(alone == gradient_of_x(true));
  CHECK(*std::max_element(alone.begin(), alone.end()) > 0);
}
