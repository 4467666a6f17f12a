#include "experiments/ablate/study.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <sstream>

#include "core/io/file.h"
#include "experiments/report/page.h"
#include "experiments/tasks/task.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

StudyPlan small_plan() {
  return plan_study(
      {"[model]\npattern = \"M\"\nd_model = 8\n[task]\nname = \"mqar\"\n[train]\n"
       "threads = 1\nsteps = 100\nstop_at = 0.9\n[ablate]\nseeds = 2\n"
       "patterns = [\"M\", \"c\", \"*\", \"-\", \"E\"]\n",
       "study.toml",
       {},
       resolve_task});
}

// A child that plays one part per pattern: a good run, a crash, a hang, a refusal, a run that is
// killed the first time and good the second.
std::string script(const StudyRun& run, const std::string& folder) {
  const std::string good =
      "echo '{\"step\": 50, \"eval_accuracy\": 0.5}' > " + folder +
      "/metrics.jsonl; printf '%s' '" +
      "{\"outcome\": \"ok\", \"message\": \"\", \"metric_name\": \"accuracy\", \"metric\": 0.9" +
      std::to_string(run.seed) +
      ", \"higher_is_better\": true, \"reached_target\": true, \"chance\": 0.01, \"floor\": 0.06, "
      "\"steps\": 50, \"seconds\": 1.5, \"parameters\": 123, \"peak_bytes\": 0, \"config_hash\": "
      "\"" +
      config_hash(run.config) + "\"}' > " + folder + "/result.json";
  switch (run.config.model.pattern[0]) {
    case 'M':
      return good;
    case 'c':
      return "kill -SEGV $$";
    case '*':
      return "sleep 30";
    case '-':
      return "echo 'block 0: no such plugin' >&2; exit 2";
    default:
      return "test -e " + folder + "/tried && { " + good + "; exit 0; }; touch " + folder +
             "/tried; kill -KILL $$";
  }
}

}  // namespace

TEST_CASE("a study survives its runs, says how each ended, and goes on where it stopped") {
  const test::TempFolder folder;
  const StudyPlan plan = small_plan();
  std::ostringstream messages;
  StudySettings settings;
  settings.out = folder / "study";
  int started = 0;
  settings.command = [&](const StudyRun& run, const std::string& where, Device) {
    ++started;
    CHECK(std::filesystem::exists(where + "/config.toml"));
    return std::vector<std::string>{"/bin/sh", "-c", script(run, where)};
  };
  settings.jobs = 4;
  settings.timeout_seconds = 0.5;
  settings.messages = &messages;

  const StudyOutcome first = run_study(plan, settings);
  CHECK(started == 10);
  const auto& rows = first.result.variants;
  REQUIRE(rows.size() == 5);
  CHECK(rows[0].n_ok == 2);
  CHECK(rows[0].parameters == 123);
  CHECK(rows[0].metric.mean == doctest::Approx(0.905));
  CHECK(rows[0].runs[1].reached_target);
  CHECK(rows[0].runs[0].curve.size() == 1);
  CHECK(rows[1].runs[0].outcome == "crash");
  CHECK(rows[1].runs[0].message == "ended by signal 11 (Segmentation fault)");
  CHECK(rows[2].runs[1].outcome == "timeout");
  CHECK(rows[3].runs[0].outcome == "refused");
  CHECK(rows[3].runs[0].message == "block 0: no such plugin");
  CHECK(rows[4].runs[0].outcome == "killed");
  CHECK(messages.str().find("  ✓ M  seed 0  accuracy 0.9000  50 steps  1.5 s\n") !=
        std::string::npos);
  CHECK(messages.str().find("  ✗ c  seed 0  crash: ended by signal 11") != std::string::npos);
  CHECK(!study_holds(first.result));
  CHECK(read_file(first.page).find("Segmentation fault") != std::string::npos);

  started = 0;
  const StudyOutcome second = run_study(plan, settings);
  CHECK(second.reused == 2);
  CHECK(started == 8);
  CHECK(second.result.variants[4].n_ok == 2);  // killed once, good now
  CHECK(run_study(plan, settings).reused == 4);
}

TEST_CASE("a study that is asked to stop passes it on and can be resumed") {
  const test::TempFolder folder;
  const StudyPlan plan = small_plan();
  std::ostringstream messages;
  StudySettings settings;
  settings.out = folder / "study";
  settings.messages = &messages;
  settings.jobs = 2;
  int asked = 0, started = 0;
  settings.interrupted = [&] { return ++asked > 10 ? 2 : 0; };
  settings.command = [&](const StudyRun&, const std::string&, Device) {
    ++started;
    return std::vector<std::string>{"/bin/sh", "-c", "sleep 30"};
  };
  const StudyOutcome outcome = run_study(plan, settings);
  CHECK(outcome.interrupted);
  CHECK(started == 2);
  CHECK(outcome.result.variants[2].runs[0].outcome == "pending");
}
