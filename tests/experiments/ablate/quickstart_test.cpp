// The first study, without its length: the file expands as its page says, and its first row learns.
#include <doctest/doctest.h>

#include <filesystem>

#include "core/io/file.h"
#include "experiments/ablate/expand.h"
#include "experiments/run/run.h"
#include "experiments/tasks/task.h"
#include "plugins/host/registry.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

StudyPlan plan_of(const std::string& path) {
  return plan_study({read_file(path), path, {}, resolve_task});
}

}  // namespace

TEST_CASE("every experiment in configs expands into runs") {
  int n = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(STRATA_SOURCE_DIR "/configs/experiments")) {
    CAPTURE(entry.path().string());
    CHECK(!plan_of(entry.path().string()).runs.empty());
    ++n;
  }
  CHECK(n >= 1);
}

TEST_CASE("mqar_study: twenty-four runs, which a device does not tell apart by its number") {
  const std::string path = STRATA_SOURCE_DIR "/configs/experiments/mqar_study.toml";
  const StudyPlan plan = plan_of(path);
  CHECK(plan.variants.size() == 8);
  CHECK(plan.runs.size() == 24);
  const StudyPlan there =
      plan_study({read_file(path), path, {{"model.device", "\"cuda:1\""}}, resolve_task});
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    CHECK(plan.runs[i].config.train.batch_size == 64);
    CHECK(there.runs[i].config.model.device == "cuda:1");
    CHECK(there.runs[i].folder != plan.runs[i].folder);
  }
}

TEST_CASE("quickstart: four stacks, three seeds, bounds at both ends") {
  const StudyPlan plan = plan_of(STRATA_SOURCE_DIR "/configs/experiments/quickstart.toml");
  REQUIRE(plan.variants.size() == 4);
  CHECK(plan.runs.size() == 12);
  CHECK(plan.variants[plan.baseline].name == "c*");
  const auto config = [&](size_t v) { return plan.runs[v].config; };
  CHECK(config(1).model.pattern == "M{d_state=4}*");
  CHECK(config(2).model.pattern == "cM{d_state=2}");
  CHECK(config(3).model.pattern == "cM{d_state=32}");
  // The two ends differ in the state alone.
  CHECK(config(2).train.lr == config(3).train.lr);
  CHECK(config(2).model.init_std == config(3).model.init_std);
  for (const StudyRun& run : plan.runs) {
    CHECK(run.config.train.steps == plan.runs[0].config.train.steps);
    CHECK(run.config.train.stop_at == 0.99);
    CHECK(std::get<int64_t>(run.config.task.options.at("n_pairs")) == 16);
  }
}

TEST_CASE("quickstart: one attention block behind a convolution recalls 16 pairs by step 400") {
  const StudyPlan plan = plan_of(STRATA_SOURCE_DIR "/configs/experiments/quickstart.toml");
  Registry plugins({}, STRATA_BINARY_DIR "/plugins");
  const test::TempFolder folder;
  RunSettings settings;
  settings.folder = folder / "run";
  const RunSummary summary = run_training(plan.runs[0].config, plugins, settings);
  CHECK(summary.outcome == "ok");
  CHECK(summary.reached_target);
  CHECK(summary.metric >= 0.99);
  CHECK(summary.steps <= 400);
}
