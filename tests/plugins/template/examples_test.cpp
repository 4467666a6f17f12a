// The three example layers: short, conformant, and able to learn what they are for.
#include <doctest/doctest.h>

#include <fstream>

#include "core/train/trainer.h"
#include "plugins/host/registry.h"
#include "plugins/kit/kit.h"

using namespace strata;

namespace {

enum class Lesson { successor, previous, first };

// successor: the token plus one (no memory). previous: the token before (a short one). first: the
// row's first token, everything after it is 0 (a long one).
class Lessons final : public DataSource {
 public:
  explicit Lessons(Lesson lesson) : lesson_(lesson) {}
  int64_t vocab_size() const override { return kVocab; }
  int64_t train_seq_len() const override { return kLength; }
  int64_t eval_seq_len() const override { return kLength; }
  int64_t eval_rows() const override { return 16; }
  bool documents() const override { return false; }
  std::string metric() const override { return "accuracy"; }
  void train_rows(uint64_t seed, int64_t step, int64_t first, int64_t batch,
                  HostBatch& out) const override {
    fill(seed, step, first, batch, out);
  }
  void eval_rows(uint64_t seed, int64_t first, int64_t batch, HostBatch& out) const override {
    fill(seed + 1, 0, first, batch, out);
  }

 private:
  static constexpr int64_t kVocab = 9, kLength = 12;
  void fill(uint64_t seed, int64_t step, int64_t first, int64_t batch, HostBatch& out) const {
    const size_t n = size_t(batch * kLength);
    out = {batch, kLength, std::vector<int32_t>(n), std::vector<int32_t>(n), {}};
    for (int64_t r = 0; r < batch; ++r) {
      Random random(seed, uint64_t(step), uint64_t(first + r) << 8);
      int32_t* tokens = &out.tokens[size_t(r * kLength)];
      int32_t* labels = &out.labels[size_t(r * kLength)];
      for (int64_t t = 0; t < kLength; ++t) {
        const bool zero = lesson_ == Lesson::first && t > 0;
        tokens[t] = zero ? 0 : int32_t(1 + random.below(kVocab - 1));
        if (lesson_ == Lesson::successor) labels[t] = (tokens[t] + 1) % kVocab;
        if (lesson_ == Lesson::previous) labels[t] = t > 0 ? tokens[t - 1] : kNoLabel;
        if (lesson_ == Lesson::first) labels[t] = tokens[0];
      }
    }
  }
  Lesson lesson_;
};

struct Example {
  const char *name, *pattern;
  Lesson lesson;
};

const Example kExamples[] = {{"gated_mlp", "gg", Lesson::successor},
                             {"min_gru", "rr", Lesson::first},
                             {"conv_mixer", "kk", Lesson::previous}};

std::string file_of(const std::string& name) {
  return std::string(STRATA_BINARY_DIR) + "/examples/" + name + ".so";
}

}  // namespace

TEST_CASE("example layers have at most 15 lines of body") {
  for (const Example& e : kExamples) {
    CAPTURE(e.name);
    std::ifstream in(std::string(STRATA_SOURCE_DIR) + "/plugins/template/examples/" + e.name + "/" +
                     e.name + ".cpp");
    REQUIRE(in);
    int lines = 0;
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
      if (line == "};") inside = false;
      if (inside && !line.empty()) ++lines;
      if (line.starts_with("class ")) inside = true;
    }
    CHECK(lines > 5);
    CHECK(lines <= 15);
  }
}

TEST_CASE("example layers pass the conformance kit") {
  for (const Example& e : kExamples) {
    CAPTURE(e.name);
    Registry registry({file_of(e.name)}, "");
    std::string failures;
    const auto rows = check_layer(registry, e.name);
    for (const CheckRow& row : rows)
      if (row.verdict == CheckVerdict::fail) failures += format_row(row) + "\n";
    CHECK(failures == "");
    CHECK(rows.size() > 20);
  }
}

TEST_CASE("example layers learn") {
  for (const Example& e : kExamples) {
    CAPTURE(e.name);
    Registry registry({file_of(e.name)}, "");
    Config c;
    c.model.pattern = e.pattern;
    c.model.d_model = 24;
    c.model.vocab_size = 9;
    c.train.steps = 150;
    c.train.batch_size = 16;
    c.train.lr = 1e-2;
    const Lessons lessons(e.lesson);
    Model model(c, registry);
    Trainer trainer(model, lessons, c.train);
    const double before = trainer.evaluate().metric;
    while (!trainer.finished()) trainer.step();
    CHECK(before < 0.5);
    CHECK(trainer.evaluate().metric > 0.98);
  }
}
