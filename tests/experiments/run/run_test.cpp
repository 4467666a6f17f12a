#include "experiments/run/run.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"
#include "tests/core/model/test_layers.h"

using namespace strata;
namespace fs = std::filesystem;

namespace {

// A folder that is gone at the end of the test.
struct Scratch {
  explicit Scratch(const std::string& name)
      : path(std::string(STRATA_BINARY_DIR) + "/run_test_" + std::to_string(::getpid()) + "_" +
             name) {
    fs::remove_all(path);
  }
  ~Scratch() { fs::remove_all(path); }
  std::string path;
};

Config config_of(std::vector<Override> more = {}) {
  std::vector<Override> all = {
      {"model.pattern", "\"--\""}, {"model.d_model", "16"},         {"task.name", "\"mqar\""},
      {"task.vocab_size", "32"},   {"task.seq_len", "16"},          {"task.n_pairs", "4"},
      {"task.eval_size", "16"},    {"train.steps", "20"},           {"train.batch_size", "4"},
      {"train.threads", "1"},      {"train.checkpoint_every", "6"}, {"train.log_every", "3"},
      {"train.eval_every", "5"}};
  all.insert(all.end(), more.begin(), more.end());
  return read_config({"", "test", std::move(all), {}});
}

RunSummary train(const Config& config, const std::string& folder, bool resume = false,
                 int stop_after = 0) {
  strata::testing::TestFactory factory;
  RunSettings settings;
  settings.folder = folder;
  settings.resume = resume;
  settings.resume_hint = "the same again";
  int calls = 0;
  settings.interrupted = [&, stop_after] { return stop_after && ++calls >= stop_after ? 2 : 0; };
  return run_training(config, factory, settings);
}

std::string last_weights(const std::string& folder) {
  return read_file(folder + "/checkpoints/step-00000020/model.safetensors");
}

std::string refusal(const Config& config, const std::string& folder, bool resume) {
  try {
    train(config, folder, resume);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("run: the folder holds what a run is known by") {
  const Scratch s("whole");
  const RunSummary summary = train(config_of(), s.path);
  CHECK(summary.outcome == "ok");
  CHECK(summary.steps == 20);
  CHECK(summary.parameters > 0);
  for (const char* file :
       {"config.toml", "record.json", "metrics.jsonl", "log.txt", "result.json"}) {
    CHECK(fs::is_regular_file(s.path + "/" + file));
  }
  CHECK(to_toml(load_config(s.path + "/config.toml")) == to_toml(config_of()));
  CHECK(read_curve(s.path, "accuracy").size() == 4);
  CHECK(read_json(s.path + "/record.json").at("seed", "record").as_int("seed") == 0);
  CHECK(refusal(config_of(), s.path, false).find("--resume auto") != std::string::npos);
  // Resuming a finished run changes nothing.
  const std::string before = last_weights(s.path);
  CHECK(train(config_of(), s.path, true).outcome == "ok");
  CHECK(last_weights(s.path) == before);
}

TEST_CASE("run: interrupted anywhere and resumed, it gives the same weights and metrics") {
  const Scratch whole("straight");
  train(config_of(), whole.path);
  for (int stop : {1, 6, 7, 10, 19}) {
    CAPTURE(stop);
    const Scratch parts("parts");
    const RunSummary first = train(config_of(), parts.path, false, stop);
    CHECK(first.outcome == "interrupted");
    CHECK(first.message.find("the same again") != std::string::npos);
    const RunSummary second = train(config_of(), parts.path, true);
    CHECK(second.outcome == "ok");
    CHECK(last_weights(parts.path) == last_weights(whole.path));
    CHECK(read_file(parts.path + "/metrics.jsonl") == read_file(whole.path + "/metrics.jsonl"));
  }
}

TEST_CASE("run: a folder of another run, other threads or a changed plugin are refused by name") {
  const Scratch s("other");
  train(config_of(), s.path, false, 5);
  CHECK(refusal(config_of({{"train.lr", "1"}}), s.path, true).find("train.lr") !=
        std::string::npos);
  CHECK(refusal(config_of({{"train.threads", "2"}}), s.path, true).find("train.threads = 1") !=
        std::string::npos);
  const std::string both =
      refusal(config_of({{"layers.mlp.d_ff", "8"}, {"task.n_pairs", "3"}}), s.path, true);
  CHECK(both.find("layers.mlp.d_ff = 8 (was its default)") != std::string::npos);
  CHECK(both.find("task.n_pairs = 3 (was 4)") != std::string::npos);
  CHECK(both.find("train.") == std::string::npos);
  Json record = read_json(s.path + "/record.json");
  Json plugin = Json::object();
  plugin.set("name", "mlp").set("path", "mlp.so").set("sha256", std::string(64, 'a'));
  record.set("plugins", Json::array().push(plugin));
  write_file(s.path + "/record.json", record.dump());
  strata::testing::TestFactory factory;
  RunSettings settings;
  settings.folder = s.path;
  settings.resume = true;
  settings.plugins = {{"mlp", "mlp.so", std::string(64, 'b')}};
  CHECK_THROWS_WITH_AS(run_training(config_of(), factory, settings),
                       doctest::Contains("plugin mlp has changed"), Error);
}

TEST_CASE("run: a damaged checkpoint is passed over for the one before") {
  const Scratch whole("good"), hurt("hurt");
  train(config_of(), whole.path);
  train(config_of(), hurt.path, false, 15);  // checkpoints at 12 and 15
  const std::string file = hurt.path + "/checkpoints/step-00000015/model.safetensors";
  REQUIRE(fs::exists(hurt.path + "/checkpoints/step-00000012"));
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-3, std::ios::end)
      .put('x');
  CHECK(train(config_of(), hurt.path, true).outcome == "ok");
  CHECK(last_weights(hurt.path) == last_weights(whole.path));
  CHECK(read_file(hurt.path + "/metrics.jsonl") == read_file(whole.path + "/metrics.jsonl"));
}

TEST_CASE("run: where no checkpoint is good, it says so and leaves everything as it is") {
  const Scratch s("all");
  train(config_of(), s.path, false, 15);
  const std::string metrics = read_file(s.path + "/metrics.jsonl");
  for (const char* step : {"12", "15"})
    fs::resize_file(s.path + "/checkpoints/step-000000" + step + "/optimizer.safetensors", 100);
  const std::string text = refusal(config_of(), s.path, true);
  CHECK(text.find("step-00000015/optimizer.safetensors") != std::string::npos);
  CHECK(text.find("remove that folder to begin anew") != std::string::npos);
  CHECK(read_file(s.path + "/metrics.jsonl") == metrics);
}

TEST_CASE("run: a target ends it early, and a loss without end ends it as diverged") {
  const Scratch s("target"), d("diverged");
  const RunSummary early =
      train(config_of({{"train.stop_at", "1e-9"}, {"train.steps", "400"}}), s.path);
  CHECK(early.reached_target);
  CHECK(early.steps < 400);
  const RunSummary bad = train(config_of({{"train.lr", "1e30"},
                                          {"train.max_skipped", "2"},
                                          {"train.warmup", "0"},
                                          {"train.clip", "0"},
                                          {"train.schedule", "\"constant\""}}),
                               d.path);
  CHECK(bad.outcome == "diverged");
  CHECK(bad.message.find("it began in") != std::string::npos);
  CHECK(read_summary(d.path)->outcome == "diverged");
}

TEST_CASE("run: a plan beyond the memory limit is refused with the table, before it starts") {
  const Scratch s("memory");
  try {
    train(config_of({{"train.memory_limit", "1000"}}), s.path);
    CHECK(false);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::resource);
    CHECK(std::string(e.what()).find("activations") != std::string::npos);
  }
  CHECK(!fs::exists(s.path));
}
