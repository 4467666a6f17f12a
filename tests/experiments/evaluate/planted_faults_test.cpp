// Faults that are easily made when Mamba-2 weights are read, planted on purpose: a check that does
// not turn red for them is no check.
//   tiled        head h reads group h % n_groups instead of h / (n_heads / n_groups)
//   transposed   A is stored as (heads per group, n_groups) instead of (n_groups, heads per group)
//   row order    in_proj holds x | z | C | B | dt instead of z | x | B | C | dt
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "experiments/evaluate/check_golden.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using namespace strata::test;

namespace {

enum class Fault { none, tiled, transposed, row_order };
constexpr Fault kFaults[] = {Fault::tiled, Fault::transposed, Fault::row_order};

struct Sizes {
  int64_t d_model = 10, heads = 16, head_dim = 3, groups = 2, states = 4, taps = 4;
  int64_t inner() const { return heads * head_dim; }
  int64_t bc() const { return groups * states; }
  int64_t rows() const { return 2 * inner() + 2 * bc() + heads; }
};

using Weights = std::map<std::string, std::vector<double>>;

double silu_of(double x) { return x / (1 + std::exp(-x)); }

// Where head or row k of the right order lies when heads are counted group-last.
int64_t turned(int64_t k, int64_t heads, int64_t groups) {
  const int64_t per_group = heads / groups;
  return k % per_group * groups + k / per_group;
}

// The mixer as its formulas say, token by token (Dao and Gu, arXiv 2405.21060), for one sequence.
// u: (seq_len, d_model) -> (seq_len, d_model).
std::vector<double> reference(const Sizes& s, const Weights& w, const std::vector<double>& u,
                              Fault fault) {
  const int64_t seq_len = int64_t(u.size()) / s.d_model, inner = s.inner(), bc = s.bc();
  // Offsets of the sections of in_proj: z, x, B, C, dt.
  int64_t z0 = 0, x0 = inner, b0 = 2 * inner, c0 = 2 * inner + bc;
  if (fault == Fault::row_order) std::swap(z0, x0), std::swap(b0, c0);
  const auto projected = [&](int64_t t, int64_t row) {
    double sum = 0;
    for (int64_t i = 0; i < s.d_model; ++i)
      sum += w.at("in_proj")[size_t(row * s.d_model + i)] * u[size_t(t * s.d_model + i)];
    return sum;
  };
  // Channel of x | B | C after the convolution.
  const auto mixed = [&](int64_t t, int64_t channel) {
    const int64_t row = channel < inner        ? x0 + channel
                        : channel < inner + bc ? b0 + channel - inner
                                               : c0 + channel - inner - bc;
    double sum = w.at("conv1d.bias")[size_t(channel)];
    for (int64_t j = 0; j < s.taps; ++j) {
      const int64_t from = t - s.taps + 1 + j;
      if (from >= 0)
        sum += w.at("conv1d.weight")[size_t(channel * s.taps + j)] * projected(from, row);
    }
    return silu_of(sum);
  };
  std::vector<double> state(size_t(inner * s.states)), out;
  for (int64_t t = 0; t < seq_len; ++t) {
    std::vector<double> y(static_cast<size_t>(inner));
    double squares = 0;
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t group = fault == Fault::tiled ? h % s.groups : h / (s.heads / s.groups);
      const int64_t stored = fault == Fault::transposed ? turned(h, s.heads, s.groups) : h;
      const double dt =
          std::log1p(std::exp(projected(t, 2 * inner + 2 * bc + h) + w.at("dt_bias")[size_t(h)]));
      const double decay = std::exp(-std::exp(w.at("A_log")[size_t(stored)]) * dt);
      for (int64_t p = 0; p < s.head_dim; ++p) {
        const int64_t channel = h * s.head_dim + p;
        const double x = mixed(t, channel);
        double sum = w.at("D")[size_t(h)] * x;
        for (int64_t n = 0; n < s.states; ++n) {
          double& cell = state[size_t(channel * s.states + n)];
          cell = decay * cell + dt * x * mixed(t, inner + group * s.states + n);
          sum += cell * mixed(t, inner + bc + group * s.states + n);
        }
        y[size_t(channel)] = sum * silu_of(projected(t, z0 + channel));
        squares += y[size_t(channel)] * y[size_t(channel)];
      }
    }
    const double inverse = 1 / std::sqrt(squares / double(inner) + 1e-5);
    for (int64_t i = 0; i < s.d_model; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < inner; ++c)
        sum += w.at("out_proj")[size_t(i * inner + c)] * y[size_t(c)] * inverse *
               w.at("norm.weight")[size_t(c)];
      out.push_back(sum);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("planted faults: the mixer differs from every faulty reading, for 2 and 8 groups") {
  Registry plugins;
  for (const int64_t groups : {int64_t{2}, int64_t{8}}) {
    CAPTURE(groups);
    Sizes s;
    s.groups = groups;
    const Options options = {{"n_heads", s.heads},       {"head_dim", s.head_dim},
                             {"n_groups", groups},       {"d_state", s.states},
                             {"d_conv", s.taps},         {"chunk_size", int64_t{4}},
                             {"norm_groups", int64_t{1}}};
    const auto layer = plugins.create("M", LayerConfig(s.d_model, 1, options, "block 0"));
    Bench bench(DType::f64);
    Weights weights;
    for (ParamSlot& p : layer->params()) {
      Random random(5, stream_of(p.name));
      std::vector<double>& values = weights[p.name];
      for (int64_t i = 0; i < p.shape.numel(); ++i) values.push_back(0.5 * random.normal());
      p.value = bench.tensor(p.shape, values);
    }
    CHECK(int64_t(weights.at("in_proj").size()) == s.rows() * s.d_model);
    const Tensor u = bench.random({1, 9, s.d_model}, 3);
    TestPass pass(1);
    const std::vector<double> got = values(layer->forward(bench.cx, u, pass));
    CHECK(difference(got, reference(s, weights, values(u), Fault::none)) < 1e-12);
    for (const Fault fault : kFaults) {
      CAPTURE(int(fault));
      CHECK(difference(got, reference(s, weights, values(u), fault)) > 1e-2);
    }
  }
}

namespace {

// The tensor with its blocks of `width` numbers taken in another order: out[k] = in[order(k)],
// counted within the range [begin, end) of blocks.
template <class F>
void reorder(std::vector<float>& values, int64_t width, int64_t begin, int64_t end, F order) {
  const std::vector<float> old = values;
  for (int64_t k = begin; k < end; ++k)
    std::copy_n(old.begin() + (begin + order(k - begin)) * width, width,
                values.begin() + k * width);
}

// Weights for which the right program computes what a faulty one does with the original ones. `s`:
// sizes of the stored model.
void plant(const Sizes& s, const std::string& name, std::vector<float>& values, Fault fault) {
  const auto ends = [&](const char* tail) { return name.ends_with(tail); };
  const auto heads = [&](int64_t k) { return turned(k, s.heads, s.groups); };
  const auto channels = [&](int64_t c) {
    return heads(c / s.head_dim) * s.head_dim + c % s.head_dim;
  };
  const int64_t inner = s.inner(), bc = s.bc();
  if (fault == Fault::transposed && ends("A_log")) reorder(values, 1, 0, s.heads, heads);
  if (fault == Fault::row_order && ends("in_proj.weight")) {
    reorder(values, s.d_model, 0, 2 * inner, [&](int64_t r) { return (r + inner) % (2 * inner); });
    reorder(values, s.d_model, 2 * inner, 2 * inner + 2 * bc,
            [&](int64_t r) { return (r + bc) % (2 * bc); });
  }
  if (fault != Fault::tiled) return;
  if (ends("A_log") || ends(".D") || ends("dt_bias")) reorder(values, 1, 0, s.heads, heads);
  if (ends("mixer.norm.weight") || ends("conv1d.bias")) reorder(values, 1, 0, inner, channels);
  if (ends("conv1d.weight")) reorder(values, s.taps, 0, inner, channels);
  if (ends("in_proj.weight")) {
    reorder(values, s.d_model, 0, inner, channels);
    reorder(values, s.d_model, inner, 2 * inner, channels);
    reorder(values, s.d_model, 2 * inner + 2 * bc, s.rows(), heads);
  }
  if (ends("out_proj.weight"))
    for (int64_t row = 0; row < s.d_model; ++row)
      reorder(values, 1, row * inner, (row + 1) * inner, channels);
}

}  // namespace

TEST_CASE("planted faults: check-golden turns red for each") {
  const std::string golden = STRATA_SOURCE_DIR "/tests/golden/mamba2";
  const Sizes s{.d_model = 48, .heads = 8, .head_dim = 12, .groups = 2, .states = 16, .taps = 4};
  const Safetensors file(golden + "/model.safetensors");
  Registry plugins;
  for (const Fault fault : {Fault::none, Fault::tiled, Fault::transposed, Fault::row_order}) {
    CAPTURE(int(fault));
    const TempFolder folder;
    for (const char* name : {"config.json", "golden.json", "golden.safetensors"})
      std::filesystem::copy(golden + "/" + name, folder / name);
    std::vector<StoredTensor> tensors = file.tensors();
    std::vector<std::vector<float>> planted(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto* data = static_cast<const float*>(tensors[i].data);
      planted[i].assign(data, data + tensors[i].bytes / sizeof(float));
      plant(s, tensors[i].name, planted[i], fault);
      tensors[i].data = planted[i].data();
    }
    write_safetensors(folder / "model.safetensors", tensors);
    const GoldenReport report = check_golden(folder.path(), plugins);
    std::map<std::string, GoldenStatus> status;
    for (const GoldenRow& row : report.rows) status[row.name] = row.status;
    const GoldenStatus expected = fault == Fault::none ? GoldenStatus::ok : GoldenStatus::failed;
    for (const char* row : {"logits f32", "logits f64", "hidden states f64", "prefill logits f32",
                            "decode logits f32", "gradients f64", "loss f64"}) {
      CAPTURE(row);
      REQUIRE(status.count(row) == 1);
      CHECK(status.at(row) == expected);
    }
  }
}
