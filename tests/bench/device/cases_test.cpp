// Every device row at a small size on the CPU: the calls fit the operations, and the planned memory
// is enough.
#include "tests/bench/device/case.h"

#include <doctest/doctest.h>

#include <set>

#include "core/tensor/device.h"
#include "tests/bench/model_rig.h"
#include "tests/bench/options.h"
#include "tests/support/error_text.h"

using namespace strata;
using namespace strata::bench;
using strata::test::error_text;

namespace {

// Runs everything twice, as a replay would.
class TwiceClock final : public Clock {
 public:
  Ceilings ceilings() override { return {"CPU", 1e12, 1e11}; }
  double seconds(const Runs& runs) override {
    const double start = seconds_now();
    for (int i = 0; i < 2; ++i) {
      runs.prepare();
      runs.body();
    }
    return (seconds_now() - start) / (2 * runs.repeats);
  }
  void randomize(const Tensor& t, double low, double high, uint64_t seed) override {
    REQUIRE(t.dtype == DType::f32);
    for (int64_t r = 0; r < t.rows(); ++r)
      for (int64_t c = 0; c < t.cols(); ++c)
        t.row<float>(r)[c] =
            float(low + (high - low) * uniform_at(seed, uint64_t(r * t.cols() + c)));
  }
};

}  // namespace

TEST_CASE("bench rows: all run on the CPU at a small size") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  TwiceClock clock;
  Env env{clock, registry, Device{}, DType::f32, {}, 40};
  std::set<std::string> names;
  for (const Case& c : all_cases(Scale::tiny, 4)) {
    INFO(c.name);
    CHECK(names.insert(c.name).second);
    const Sample sample = c.measure(env);
    CHECK(sample.seconds > 0);
    CHECK(sample.work.flops + sample.work.bytes > 0);
  }
  CHECK(names.contains("mixer_backward/2x40"));
  CHECK(names.contains("decode_tiny/3x70"));
}

TEST_CASE("bench rows: the full table has unique names") {
  std::set<std::string> names;
  for (const Case& c : all_cases(Scale::full, 2)) CHECK(names.insert(c.name).second);
  for (const char* name :
       {"ssd_forward/8x8192", "ssd_backward/1x2048", "mixer_forward/8x8192",
        "gated_norm_backward/8x8192", "conv_update/64", "attention_decode/64x4096",
        "state_update/8", "matmul_lm_head/1", "matmul_dw_up/8192", "moe_up/8192",
        "train_1.2b/1x32768", "prefill_nano/1x65536", "decode_1.2b/64x4096"})
    CHECK(names.contains(name));
}

TEST_CASE("bench rows: a backward runs the tape alone, and again from the start") {
  TwiceClock clock;
  Memory memory(Device{}, 1 << 20, 1 << 20);
  Rig rig(clock, memory, DType::f32);
  const Tensor x = rig.random({4, 8});
  int forwards = 0;
  const Runs runs = rig.backward([&] {
    ++forwards;
    const Tensor v = rig.variable(x), y = rig.cx.track(rig.cx.alloc(v.shape));
    rig.cx.record([=](Context& cx) { cx.zero(cx.grad_target(v).grad); });
    return y;
  });
  for (int round = 1; round <= 3; ++round) {
    runs.prepare();
    CHECK(forwards == round);
    CHECK(rig.cx.tape_size() == 1);
    runs.body();
    CHECK(rig.cx.tape_size() == 0);
  }
  CHECK(memory.activations.peak() == 2 * 4 * 8 * 4 + 4 * 8 * 4);
}

TEST_CASE("bench: medians of a measurement, few when a call is long") {
  int calls = 0;
  const auto times = [&](double seconds) {
    return [&, seconds] { return ++calls == 1 ? 100 * seconds : seconds; };
  };
  CHECK(median_seconds(times(1e-3)) == 1e-3);
  CHECK(calls == 30);
  calls = 0;
  CHECK(median_seconds(times(2)) == 2);
  CHECK(calls == 3);
  CHECK(error_text([] { open_clock(Device{}); }).find("groups") != std::string::npos);
}

TEST_CASE("bench rows: flops and bytes of a model") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  Config c;
  c.model.pattern = "M*-";
  c.model.d_model = 32;
  c.model.vocab_size = 10;
  c.layers["M"] = {{"n_heads", int64_t{4}},
                   {"head_dim", int64_t{16}},
                   {"n_groups", int64_t{2}},
                   {"d_state", int64_t{8}}};
  c.layers["*"] = {{"n_heads", int64_t{4}}, {"n_kv_heads", int64_t{2}}, {"head_dim", int64_t{8}}};
  c.layers["-"] = {{"d_ff", int64_t{48}}};
  Model model(c, registry);
  const double mixer = 32 * (64 + 64 + 32 + 4) + 64 * 32, attention = 2 * 32 * 32 + 2 * 16 * 32,
               mlp = 2 * 32 * 48, head = 320;
  CHECK(matmul_numbers(model) == int64_t(mixer + attention + mlp + head));
  const double scan = 128 * 16 + 128 * 64 + 4 * 8 * 64;
  CHECK(flops_per_token(model, 100) ==
        doctest::Approx(2 * (mixer + attention + mlp + head) + 2 * 100 * 32 + scan));
  CHECK(flops_per_token(model, 100) - flops_per_token(model, 100, false) == doctest::Approx(640));
  // Keys and values of 100 tokens; the scan's state and the convolution's tail, in and out.
  CHECK(sequence_bytes(model, 100) ==
        doctest::Approx(100 * 2 * 16 * 4 + 2 * (64 * 8 * 4 + 3 * 96 * 4)));
}

TEST_CASE("bench: the command line") {
  const std::vector<std::string> groups{"linear", "ssd"};
  const BenchOptions cpu = parse_options({"ssd"}, groups);
  CHECK(cpu.groups == std::vector<std::string>{"ssd"});
  CHECK_FALSE(cpu.device);
  const BenchOptions cuda =
      parse_options({"--device", "cuda", "--only", "^ssd", "--json", "a.json", "--peers", "b.json",
                     "--peers", "c.json", "--recompute", "M,-", "--chunk", "4096", "--portable"},
                    groups);
  REQUIRE(cuda.device);
  CHECK(cuda.device->device.kind == DeviceKind::cuda);
  CHECK(cuda.device->dtype == DType::bf16);
  CHECK(cuda.device->peers == std::vector<std::string>{"b.json", "c.json"});
  CHECK(cuda.device->recompute == std::vector<std::string>{"M", "-"});
  CHECK(cuda.device->prefill_chunk == 4096);
  CHECK(cuda.device->portable);
  const auto refusal = [&](std::vector<std::string> words) {
    return error_text([&] { parse_options(words, groups); });
  };
  CHECK(refusal({"nothing"}).find("there is no group 'nothing'") == 0);
  CHECK(refusal({"--onyl", "x"}) == "there is no option --onyl; the nearest is --only");
  CHECK(refusal({"--only", "x"}) == "--only needs --device cuda");
  CHECK(refusal({"--device"}) == "--device needs a value");
  CHECK(refusal({"--device", "cuda", "--chunk", "0"}).find("at least 1") != std::string::npos);
  CHECK(refusal({"--device", "cuda", "ssd"}).find("use --only") != std::string::npos);
}
