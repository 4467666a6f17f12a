// A study over devices, with children of the shell and devices that are numbers.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "experiments/ablate/study.h"
#include "experiments/tasks/task.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

StudyPlan plan_on(const std::string& device, const std::string& ablate) {
  return plan_study({"[model]\npattern = \"M\"\nd_model = 8\ndevice = \"" + device +
                         "\"\n[task]\nname = \"mqar\"\n[ablate]\n" + ablate,
                     "study.toml",
                     {},
                     resolve_task});
}

StudyDevice fake(int index, int64_t slots, int64_t free_bytes = 0) {
  StudyDevice d;
  d.device = {DeviceKind::cuda, index};
  d.slots = slots;
  d.free_bytes = free_bytes;
  return d;
}

std::string ends_as(const StudyRun& run, const std::string& folder, const std::string& outcome,
                    const std::string& message = "") {
  return "printf '%s' '{\"outcome\": \"" + outcome + "\", \"message\": \"" + message +
         "\", \"metric_name\": \"accuracy\", \"metric\": 0.5, \"higher_is_better\": true, "
         "\"reached_target\": false, \"chance\": 0, \"floor\": 0, \"steps\": 5, \"seconds\": 1, "
         "\"parameters\": 1, \"peak_bytes\": 0, \"config_hash\": \"" +
         config_hash(run.config) + "\"}' > " + folder + "/result.json; exit " +
         (outcome == "ok" ? "0" : "3");
}

// What a study does: who started where, and how many were there at once.
struct Stage {
  test::TempFolder folder;
  std::ostringstream messages;
  StudySettings settings;
  std::vector<std::pair<std::string, int>> started;  // folder of the run, index of the device
  // The child's script by run, its folder and its device.
  std::function<std::string(const StudyRun&, const std::string&, Device)> script;

  explicit Stage(std::vector<StudyDevice> devices) {
    settings.out = folder / "study";
    settings.jobs = 0;
    settings.devices = std::move(devices);
    settings.messages = &messages;
    settings.command = [this](const StudyRun& run, const std::string& where, Device device) {
      started.push_back({run.folder, device.index});
      return std::vector<std::string>{"/bin/sh", "-c", script(run, where, device)};
    };
    script = [](const StudyRun& run, const std::string& where, Device) {
      return ends_as(run, where, "ok");
    };
  }
  std::map<int, int> count() const {
    std::map<int, int> by_device;
    for (const auto& [run, index] : started) ++by_device[index];
    return by_device;
  }
};

std::vector<std::string> outcomes(const StudyResult& study) {
  std::vector<std::string> out;
  for (const VariantResult& v : study.variants)
    for (const RunResult& run : v.runs) out.push_back(run.outcome);
  return out;
}

}  // namespace

TEST_CASE("runs are dealt out to the devices of a study, each told its own") {
  const StudyPlan plan = plan_on("cuda", "patterns = [\"M\", \"c\", \"-\"]\nseeds = 4\n");
  CHECK(plan.runs[0].config.model.device == "cuda");
  CHECK(plan.runs[0].config.train.threads == 0);
  Stage stage({fake(0, 2), fake(1, 2)});
  stage.script = [](const StudyRun& run, const std::string& where, Device device) {
    const Config config = load_config(where + "/config.toml");
    CHECK(config.model.device == to_string(device));
    CHECK(config_hash(config) == config_hash(run.config));
    return "sleep 0.1; " + ends_as(run, where, "ok");
  };
  const StudyOutcome outcome = run_study(plan, stage.settings);
  CHECK(study_holds(outcome.result));
  CHECK(stage.started.size() == 12);
  CHECK(stage.count()[0] >= 4);
  CHECK(stage.count()[1] >= 4);
  CHECK(run_study(plan, stage.settings).reused == 12);
}

TEST_CASE("which device of a kind, and how many threads feed it, is no part of what a run is") {
  const std::string ablate = "patterns = [\"M\"]\nseeds = 1\n";
  StudyPlan any = plan_on("cuda", ablate), two = plan_on("cuda:0,cuda:1", ablate),
            last = plan_on("cuda:7", ablate);
  CHECK(any.runs[0].folder == two.runs[0].folder);
  CHECK(any.runs[0].folder == last.runs[0].folder);
  CHECK(any.runs[0].folder != plan_on("cpu", ablate).runs[0].folder);
  CHECK(two.runs[0].config.model.device == "cuda:0");
  CHECK(last.runs[0].devices.indices == std::vector<int>{7});
  const std::string before = config_hash(any.runs[0].config);
  share_threads(any, 1 << 20);
  CHECK(any.runs[0].config.train.threads == 1);
  CHECK(config_hash(any.runs[0].config) == before);
  CHECK_THROWS_WITH_AS(plan_on("cpu,cuda:0", ablate), doctest::Contains("of one kind"), Error);
}

TEST_CASE("memory by plan decides how many share a device") {
  StudyPlan plan = plan_on("cuda", "patterns = [\"M\"]\nseeds = 6\n");
  for (StudyRun& run : plan.runs) run.bytes = 1000;
  // Room for two, slots for six; every child counts those beside it.
  Stage stage({fake(0, 6, 2 * (1000 + kContextBytes))});
  stage.script = [&](const StudyRun& run, const std::string& where, Device) {
    const std::string mark = stage.folder / "running";
    return "mkdir -p " + mark + "; touch " + mark + "/$$; sleep 0.1; ls " + mark + " | wc -l >> " +
           (stage.folder / "counts") + "; rm " + mark + "/$$; " + ends_as(run, where, "ok");
  };
  CHECK(study_holds(run_study(plan, stage.settings).result));
  std::set<std::string> counts;
  std::ifstream file(stage.folder / "counts");
  for (std::string line; std::getline(file, line);) counts.insert(line);
  CHECK(*counts.rbegin() == "2");
}

TEST_CASE(
    "a device that is lost ends its rows, the others go on, and a rerun makes what is missing") {
  const StudyPlan plan =
      plan_on("cuda", "grid = { \"model.device\" = [\"cuda:0\", \"cuda:1\"] }\nseeds = 3\n");
  REQUIRE(plan.runs.size() == 6);
  Stage stage({fake(0, 1), fake(1, 1)});
  stage.script = [](const StudyRun& run, const std::string& where, Device device) {
    return device.index == 0
               ? ends_as(run, where, "lost", "device cuda:0 was lost at or before scan of block 1")
               : ends_as(run, where, "ok");
  };
  const StudyOutcome first = run_study(plan, stage.settings);
  CHECK(outcomes(first.result) ==
        std::vector<std::string>{"lost", "not run", "not run", "ok", "ok", "ok"});
  CHECK(stage.count()[0] == 1);
  CHECK(first.result.variants[0].runs[1].message == "device cuda:0 was lost");
  CHECK(stage.messages.str().find("not run: device cuda:0 was lost") != std::string::npos);
  CHECK(!study_holds(first.result));

  stage.started.clear();
  stage.script = [](const StudyRun& run, const std::string& where, Device) {
    return ends_as(run, where, "ok");
  };
  const StudyOutcome second = run_study(plan, stage.settings);
  CHECK(second.reused == 3);
  CHECK(stage.started.size() == 3);
  CHECK(study_holds(second.result));
}

TEST_CASE("what waits for any device goes to those that are left") {
  const StudyPlan plan = plan_on("cuda", "patterns = [\"M\", \"c\"]\nseeds = 3\n");
  Stage stage({fake(0, 1), fake(1, 1)});
  stage.script = [](const StudyRun& run, const std::string& where, Device device) {
    return device.index == 0 ? ends_as(run, where, "lost", "device cuda:0 was lost")
                             : "sleep 0.05; " + ends_as(run, where, "ok");
  };
  const auto all = outcomes(run_study(plan, stage.settings).result);
  CHECK(std::count(all.begin(), all.end(), "ok") == 5);
  CHECK(std::count(all.begin(), all.end(), "lost") == 1);
  CHECK(stage.count()[0] == 1);
}

TEST_CASE("a run that could not have its device is tried on another one") {
  const StudyPlan plan = plan_on("cuda", "patterns = [\"M\"]\nseeds = 3\n");
  Stage stage({fake(0, 1), fake(1, 1)});
  stage.script = [](const StudyRun& run, const std::string& where, Device device) {
    return device.index == 0 ? ends_as(run, where, "device", "device cuda:0: busy")
                             : ends_as(run, where, "ok");
  };
  const StudyOutcome outcome = run_study(plan, stage.settings);
  CHECK(study_holds(outcome.result));
  CHECK(stage.count()[0] == 1);
  CHECK(stage.messages.str().find("is tried again: device cuda:0: busy") != std::string::npos);

  // With none left, every row says why.
  Stage alone({fake(0, 1)});
  alone.script = stage.script;
  const auto rows = outcomes(run_study(plan, alone.settings).result);
  CHECK(rows == std::vector<std::string>{"device", "not run", "not run"});
}

TEST_CASE("a run that found no memory beside others has the device to itself, once") {
  StudyPlan plan = plan_on("cuda", "patterns = [\"M\"]\nseeds = 3\n");
  for (StudyRun& run : plan.runs) run.bytes = 10;
  Stage stage({fake(0, 3, int64_t{100} << 30)});
  stage.script = [&](const StudyRun& run, const std::string& where, Device) {
    const std::string none = ends_as(run, where, "resources", "no memory");
    return run.seed == 0 ? none : "sleep 0.2; " + ends_as(run, where, "ok");
  };
  const auto rows = outcomes(run_study(plan, stage.settings).result);
  CHECK(rows == std::vector<std::string>{"oom", "ok", "ok"});
  CHECK(stage.started.size() == 4);
  CHECK(stage.started.back().first == plan.runs[0].folder);
}
