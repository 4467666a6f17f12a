#include "core/train/trainer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include <unistd.h>

#include "core/train/checkpoint.h"
#include "tests/core/model/test_layers.h"

using namespace strata;
namespace fs = std::filesystem;

namespace {

// Predict the token itself plus one: a model of tokens alone learns it.
class Successor final : public DataSource {
 public:
  int64_t vocab_size() const override { return 13; }
  int64_t train_seq_len() const override { return 6; }
  int64_t eval_seq_len() const override { return 6; }
  int64_t eval_rows() const override { return 8; }
  bool documents() const override { return false; }
  std::string metric() const override { return "accuracy"; }
  void train_rows(uint64_t seed, int64_t step, int64_t first, int64_t batch,
                  HostBatch& out) const override {
    fill(seed, step, first, batch, out);
  }
  void eval_rows(uint64_t seed, int64_t first, int64_t batch, HostBatch& out) const override {
    fill(seed + 1, 0, first, batch, out);
  }
  mutable int64_t ragged = 0;  // rows with fewer labels

 private:
  void fill(uint64_t seed, int64_t step, int64_t first, int64_t batch, HostBatch& out) const {
    out = {batch,
           6,
           std::vector<int32_t>(size_t(batch * 6)),
           std::vector<int32_t>(size_t(batch * 6)),
           {}};
    for (int64_t r = 0; r < batch; ++r) {
      Random random(seed, uint64_t(step), uint64_t(first + r) << 8);
      for (int64_t t = 0; t < 6; ++t) {
        const int32_t token = int32_t(random.below(13));
        out.tokens[size_t(r * 6 + t)] = token;
        out.labels[size_t(r * 6 + t)] = ragged && t > (first + r) % 6 ? kNoLabel : (token + 1) % 13;
      }
    }
  }
};

Config config_for(int64_t accumulate = 1) {
  Config c;
  c.model.pattern = "--";
  c.model.d_model = 16;
  c.model.vocab_size = 13;
  c.model.init_std = 0.5;
  c.train.steps = 60;
  c.train.batch_size = 8;
  c.train.accumulate = accumulate;
  c.train.lr = 1e-2;
  return c;
}

std::vector<float> weights(Model& model) {
  std::vector<float> all;
  for (const NamedParam& p : model.params().all())
    all.insert(all.end(), p.slot->value.ptr<float>(),
               p.slot->value.ptr<float>() + p.slot->shape.numel());
  return all;
}

struct Run {
  explicit Run(Config c, int64_t ragged = 0) : model(c, factory), config(c) {
    source.ragged = ragged;
    trainer = std::make_unique<Trainer>(model, source, c.train);
  }
  testing::TestFactory factory;
  Model model;
  Config config;
  Successor source;
  std::unique_ptr<Trainer> trainer;
};

std::string folder(const char* name) {
  const std::string path =
      fs::temp_directory_path() / (std::string("strata_") + name + std::to_string(getpid()));
  fs::remove_all(path);
  return path;
}

}  // namespace

TEST_CASE("training learns, and accumulation changes nothing but rounding") {
  Run whole(config_for(1), 1), parts(config_for(4), 1);
  for (int i = 0; i < 60; ++i) {
    const StepReport a = whole.trainer->step(), b = parts.trainer->step();
    CHECK(a.loss == doctest::Approx(b.loss).epsilon(2e-4));
    CHECK(a.grad_norm == doctest::Approx(b.grad_norm).epsilon(2e-3));
    CHECK(a.labelled == b.labelled);
  }
  CHECK(whole.trainer->evaluate().metric > 0.95);
  CHECK(whole.trainer->plan().activations > parts.trainer->plan().activations);
}

TEST_CASE("a checkpoint resumes bit for bit") {
  Run whole(config_for());
  for (int i = 0; i < 20; ++i) whole.trainer->step();
  Run first(config_for());
  for (int i = 0; i < 9; ++i) first.trainer->step();
  const std::string path = folder("resume");
  save_checkpoint(path, *first.trainer, 2, "note");
  Run second(config_for());
  CHECK(load_checkpoint(latest_checkpoint(path), *second.trainer) == "note");
  for (int i = 9; i < 20; ++i) second.trainer->step();
  CHECK(weights(whole.model) == weights(second.model));
  fs::remove_all(path);
}

TEST_CASE("damaged checkpoints are named, and the one before is still good") {
  Run run(config_for());
  const std::string path = folder("damage");
  for (int i = 0; i < 3; ++i) {
    run.trainer->step();
    save_checkpoint(path, *run.trainer, 2, "");
  }
  const std::string newest = latest_checkpoint(path);
  CHECK(newest.ends_with("step-00000003"));
  CHECK_FALSE(fs::exists(path + "/step-00000001"));
  const std::string file = newest + "/model.safetensors";
  SUBCASE("one bit flipped") {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(-5, std::ios::end);
    const char c = char(f.get());
    f.seekp(-5, std::ios::end);
    f.put(char(c ^ 4));
  }
  SUBCASE("cut short") { fs::resize_file(file, fs::file_size(file) / 2); }
  SUBCASE("a part is gone") { fs::remove(newest + "/optimizer.safetensors"); }
  std::vector<std::string> damaged;
  CHECK(latest_checkpoint(path, &damaged).ends_with("step-00000002"));
  CHECK(damaged.size() == 1);
  CHECK_THROWS_AS(load_checkpoint(newest, *run.trainer), Error);
  fs::remove_all(path);
}

TEST_CASE("a checkpoint of another model is refused with both shapes") {
  Run run(config_for());
  const std::string path = folder("other");
  const std::string saved = save_checkpoint(path, *run.trainer, 1, "");
  Config wider = config_for();
  wider.model.d_model = 20;
  Run other(wider);
  CHECK_THROWS_WITH_AS(load_checkpoint(saved, *other.trainer), doctest::Contains("[13, 20]"),
                       Error);
  fs::remove_all(path);
}

TEST_CASE("a step that is not finite changes nothing, and a row of them stops the run by name") {
  Config c = config_for();
  c.train.max_skipped = 3;
  Run run(c);
  run.trainer->step();
  run.model.params().at("blocks.1.mixer.up_proj").slot->value.ptr<float>()[5] =
      std::numeric_limits<float>::infinity();
  const std::vector<float> before = weights(run.model);
  const StepReport report = run.trainer->step();
  CHECK(report.skipped);
  CHECK(report.culprit.find("blocks.1.mixer.up_proj") != std::string::npos);
  CHECK(weights(run.model) == before);
  run.trainer->step();
  CHECK_THROWS_WITH_AS(run.trainer->step(), doctest::Contains("3 steps in a row"), Diverged);
}

TEST_CASE("a run that does not fit is refused before it starts, with the table") {
  Config c = config_for();
  c.train.memory_limit = 20000;
  testing::TestFactory factory;
  Model model(c, factory);
  Successor source;
  try {
    Trainer trainer(model, source, c.train);
    FAIL("not refused");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::resource);
    CHECK(std::string(error.what()).find("activations") != std::string::npos);
  }
}

TEST_CASE("a batch that does not divide into microbatches is refused with both numbers") {
  Config c = config_for(3);
  testing::TestFactory factory;
  Model model(c, factory);
  Successor source;
  CHECK_THROWS_WITH_AS(Trainer(model, source, c.train), doctest::Contains("8"), Error);
}
