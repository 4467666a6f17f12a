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

TEST_CASE("microbatches with unequal labels: the sum over the step, or the mean of their means") {
  for (const char* norm : {"token", "microbatch"}) {
    Config one = config_for(1), four = config_for(4);
    for (Config* c : {&one, &four}) {
      c->model.dtype = "f64";
      c->train.loss_norm = norm;
    }
    Run whole(one, 1), parts(four, 1);
    const StepReport a = whole.trainer->step(), b = parts.trainer->step();
    CAPTURE(norm);
    CHECK(a.labelled == b.labelled);
    const bool same = std::string(norm) == "token";
    CHECK((std::abs(a.loss - b.loss) < 1e-13) == same);
    CHECK((std::abs(a.grad_norm - b.grad_norm) < 1e-13) == same);
    // The mean of the means, from evaluations of the microbatches.
    Run again(four, 1);
    double mean = 0;
    for (int64_t i = 0; i < 4; ++i) {
      HostBatch batch;
      again.source.train_rows(0, 0, 2 * i, 2, batch);
      const LossSum sum = again.model.evaluate(batch.view());
      mean += sum.loss / double(sum.count) / 4;
    }
    CHECK((std::abs(b.loss - mean) < 1e-13) != same);
  }
}

TEST_CASE("no plan holds tokens x vocab_size, and loss_chunk bounds the logits") {
  const auto plan = [](int64_t vocab_size, int64_t rows, int64_t chunk) {
    Config c = config_for();
    c.model.vocab_size = vocab_size;
    c.train.batch_size = rows;
    c.train.loss_chunk = chunk;
    testing::TestFactory factory;
    Model model(c, factory);
    return plan_training(model, Successor(), c.train);
  };
  const auto grows = [&](int64_t vocab_size) {
    const MemoryPlan few = plan(vocab_size, 100, 128), many = plan(vocab_size, 400, 128);
    return many.activations + many.scratch - few.activations - few.scratch;
  };
  CHECK(grows(100'000) == grows(50'000));
  const size_t wide = plan(50'000, 100, 512).scratch, narrow = plan(50'000, 100, 128).scratch;
  CHECK(wide - narrow >= 384 * 50'000 * sizeof(float));
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

TEST_CASE("every flipped bit of every file of a checkpoint is found") {
  Run run(config_for());
  run.trainer->step();
  const std::string path = folder("flip");
  const std::string saved = save_checkpoint(path, *run.trainer, 1, "{\"seconds\": 12.5}");
  Random random(3, 0);
  for (const char* name : {"state.json", "model.safetensors", "optimizer.safetensors"}) {
    const std::string file = saved + "/" + name;
    for (int i = 0; i < 100; ++i) {
      const auto at = std::streamoff(random.below(fs::file_size(file)));
      const char bit = char(1 << random.below(8));
      CAPTURE(file);
      CAPTURE(at);
      std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
      const auto flip = [&] {
        f.seekg(at);
        const char c = char(f.get());
        f.seekp(at);
        f.put(char(c ^ bit)).flush();
      };
      flip();
      CHECK(latest_checkpoint(path).empty());
      flip();
    }
  }
  CHECK(latest_checkpoint(path) == saved);
  fs::remove_all(path);
}

TEST_CASE("a damaged checkpoint of a later step does not crowd out the good ones") {
  Run run(config_for());
  const std::string path = folder("crowd");
  run.trainer->step();
  const std::string first = save_checkpoint(path, *run.trainer, 1, "");
  Run ahead(config_for());
  for (int i = 0; i < 3; ++i) ahead.trainer->step();
  fs::resize_file(save_checkpoint(path, *ahead.trainer, 2, "") + "/model.safetensors", 9);
  fs::create_directory(path + "/step-00000002.tmp-2147483646");  // of a writer that was killed
  CHECK(latest_checkpoint(path) == first);
  Run second(config_for());
  load_checkpoint(first, *second.trainer);
  second.trainer->step();
  const std::string next = save_checkpoint(path, *second.trainer, 1, "");
  CHECK(latest_checkpoint(path) == next);
  CHECK(std::distance(fs::directory_iterator(path), fs::directory_iterator()) == 1);
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

TEST_CASE("what overflows is named by its place and largest parameter, without more memory") {
  Config c = config_for();
  c.model.vocab_size = 4000;  // logits of all positions would be larger than the plan
  c.train.loss_chunk = 4;
  c.train.max_skipped = 2;
  Run run(c);
  const auto set = [&](const char* name, float value) {
    const Tensor& t = run.model.params().at(name).slot->value;
    std::fill(t.ptr<float>(), t.ptr<float>() + t.numel(), value);
  };
  SUBCASE("in the forward of a block") {
    set("blocks.1.mixer.up_proj", 1e20f);
    set("blocks.1.mixer.down_proj", 1e25f);
    const std::string culprit = run.trainer->step().culprit;
    CHECK(culprit.find("block 1") != std::string::npos);
    CHECK(culprit.find("in forward") != std::string::npos);
    CHECK(culprit.find("blocks.1.mixer.down_proj") != std::string::npos);
  }
  SUBCASE("in the backward of the head") {
    set("lm_head.weight", 0);
    run.model.params().at("lm_head.weight").slot->value.ptr<float>()[3] = 3e38f;
    const StepReport report = run.trainer->step();
    CHECK(report.skipped);
    CHECK(report.culprit.find("lm_head.weight") != std::string::npos);
  }
  try {
    for (int i = 0; i < 3; ++i) run.trainer->step();
    FAIL("not stopped");
  } catch (const Diverged& e) {
    CHECK(e.last.skipped_so_far == 2);
    CHECK(e.last.culprit != "");
  }
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
