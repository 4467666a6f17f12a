// Runs and studies on devices that are none (tests/support/fake_cuda), through the built program:
// what is recorded, how a device fails, and how a run goes on afterwards.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/model/config.h"
#include "experiments/run/run_folder.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using namespace strata;
namespace fs = std::filesystem;

namespace {

const std::string kSmall =
    "--task mqar --d-model 16 --batch-size 4 --steps 24 --set task.eval_size=8 "
    "--set task.seq_len=32 --set task.n_pairs=4 --set train.checkpoint_every=4 "
    "--set train.log_every=1 --set train.eval_every=8 --quiet ";

// `environment`: what the devices are like, "STRATA_FAKE_MIB=64".
test::Outcome on_fake(const std::string& arguments, const std::string& environment = "") {
  return test::shell("LD_LIBRARY_PATH=" STRATA_BINARY_DIR "/tests/fake_cuda " + environment + " " +
                     test::program() + " " + arguments);
}

std::string throwing(const std::string& kind, int step) {
  return "--plugin-path " STRATA_BINARY_DIR
         "/tests/plugins/throwing.so --pattern=-X "
         "--set layers.X.kind='\"" +
         kind + "\"' --set layers.X.step=" + std::to_string(step) + " ";
}

// The folders of a study's runs by seed and variant.
std::vector<std::string> run_folders(const std::string& study) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(study + "/runs")) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

// What a run learned: the same however often it was stopped.
void check_same(const std::string& a, const std::string& b) {
  for (const char* file : {"/metrics.jsonl", "/checkpoints/step-00000024/model.safetensors"}) {
    CAPTURE(file);
    CHECK(read_file(a + file) == read_file(b + file));
  }
}

std::string text(const Json& json, const std::string& key) {
  return json.at(key, "json").as_string(key);
}

}  // namespace

TEST_CASE("a run's record says device, driver and versions, its metrics the peak beside the plan") {
  const test::TempFolder folder;
  const std::string out = folder / "run";
  const test::Outcome o = on_fake("run --pattern=-- --device cuda:1 " + kSmall + "--out " + out);
  REQUIRE_MESSAGE(o.code == 0, o.err);
  const Json record = read_json(out + "/record.json").at("device", "record");
  CHECK(text(record, "device") == "cuda:1");
  CHECK(text(record, "name") == "Fake 1");
  CHECK(text(record, "driver") == "1.2.3");
  CHECK(text(record, "driver_cuda") == "13.1");
  CHECK(text(record, "cuda") == "13.0");
  CHECK(record.at("deterministic", "record").as_bool("deterministic"));

  const RunSummary s = read_summary(out).value();
  CHECK(s.device == "cuda:1");
  CHECK(s.tokens_per_second > 0);
  CHECK(s.used_bytes >= s.planned_bytes);  // sums of losses and counts have room of their own
  CHECK(s.used_bytes < s.planned_bytes + (4 << 10));
  const std::string metrics = read_file(out + "/metrics.jsonl");
  CHECK(metrics.find("\"device_peak_bytes\": " + std::to_string(s.used_bytes)) !=
        std::string::npos);
  CHECK(metrics.find("\"device_planned_bytes\": " + std::to_string(s.planned_bytes)) !=
        std::string::npos);
}

TEST_CASE(
    "a fault names the kernel and the block it can have come from, and the run goes on later") {
  const test::TempFolder folder;
  const std::string calm = folder / "calm", hit = folder / "hit";
  const std::string command = "run --pattern=-- --device cuda " + kSmall + "--out ";
  REQUIRE(on_fake(command + calm).code == 0);
  const test::Outcome o = on_fake(command + hit, "STRATA_FAKE_FAILS='fault 0 100'");
  CHECK(o.code == 3);
  CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
  CHECK(o.err.find(
            "strata: device cuda:0: an illegal memory access was encountered at or before ") == 0);
  CHECK(std::regex_search(
      o.err, std::regex("at or before [a-z_]+ of (block [01] '-' \\(mlp\\)|embedding|optimizer|"
                        "final norm|LM head); this process cannot use it any more, what has been "
                        "written stays good; CUDA_LAUNCH_BLOCKING=1 and model.cuda_graphs = false "
                        "show the very kernel\n$")));
  const RunSummary failed = read_summary(hit).value();
  CHECK(failed.outcome == "fault");
  CHECK("strata: " + failed.message + "\n" == o.err);
  CHECK(failed.steps > 4);
  CHECK(failed.steps < 24);
  CHECK(fs::exists(hit + "/checkpoints"));

  REQUIRE(on_fake(command + hit + " --resume auto").code == 0);
  check_same(calm, hit);
}

TEST_CASE("what a device does to a run is typed: outcome, sentence and exit code") {
  const test::TempFolder folder;
  for (const auto& [kind, outcome] :
       {std::pair{"device", "device"}, std::pair{"fault", "fault"}, std::pair{"lost", "lost"},
        std::pair{"resource", "resources"}}) {
    CAPTURE(kind);
    const std::string out = folder / kind;
    const test::Outcome o = test::strata("run " + throwing(kind, 9) + kSmall + "--out " + out);
    CHECK(o.code == 3);
    CHECK(o.err.find("block 1 'X' (throwing): the device says " + std::string(kind)) !=
          std::string::npos);
    CHECK(read_summary(out).value().outcome == outcome);
    CHECK(read_summary(out).value().steps == 8);
  }
  // A finished run is not touched by what happens when it is asked for again.
  const std::string done = folder / "done";
  const std::string command = "run --pattern=- --device cuda " + kSmall + "--out " + done;
  REQUIRE(on_fake(command).code == 0);
  CHECK(on_fake(command + " --resume auto", "STRATA_FAKE_MIB=0").code == 3);
  CHECK(read_summary(done).value().outcome == "ok");
}

TEST_CASE("a run on a device may go on with other threads and on another one, one on the CPU not") {
  const test::TempFolder folder;
  const std::string command = "run --pattern=- " + kSmall + "--resume auto --out ";
  const std::string there = folder / "there", here = folder / "here";
  REQUIRE(on_fake(command + there + " --threads 1 --device cuda:0").code == 0);
  CHECK(on_fake(command + there + " --threads 2 --device cuda:1 --set train.steps=26").code == 0);
  CHECK(read_summary(there).value().steps == 26);
  CHECK(read_summary(there).value().device == "cuda:1");
  REQUIRE(test::strata(command + here + " --threads 1").code == 0);
  CHECK(test::strata(command + here + " --threads 2 --set train.steps=26").code == 2);
}

TEST_CASE("too little memory on a device is the plan's table, before the first step") {
  const test::TempFolder folder;
  const test::Outcome o = on_fake("run --pattern=-- --device cuda --set train.batch_size=512 " +
                                      kSmall + "--out " + (folder / "run"),
                                  "STRATA_FAKE_MIB=1");
  CHECK(o.code == 3);
  CHECK(o.err.find("of memory, cuda:0 has 1.00 MiB free; lower train.batch_size") !=
        std::string::npos);
  CHECK(o.err.find("activations") != std::string::npos);
  CHECK(o.err.find("total") != std::string::npos);
}

TEST_CASE("memory that somebody takes after the plan is the plan's table too, and an oom row") {
  const test::TempFolder folder;
  const std::string taken = "STRATA_FAKE_MIB=64 STRATA_FAKE_TAKEN=64";
  const std::string rest = " --device cuda " + kSmall + "--out ";
  const test::Outcome o = on_fake("run --pattern=--" + rest + (folder / "run"), taken);
  CHECK(o.code == 3);
  CHECK(o.err.find("device cuda:0 cannot provide") != std::string::npos);
  CHECK(o.err.find("; the plan of the run is\n  parameters") != std::string::npos);
  const test::Outcome study =
      on_fake("ablate --pattern=- --seeds 1 --json" + rest + (folder / "study"), taken);
  CHECK(study.code == 1);
  CHECK(study.out.find("\"oom\"") != std::string::npos);
}

TEST_CASE("a study gives the same numbers however many runs share a device") {
  const test::TempFolder folder;
  const std::string one = folder / "one", many = folder / "many";
  const std::string study = "ablate --patterns=- --patterns=-- --seeds 3 " + kSmall;
  const test::Outcome a = on_fake(study + "--device cuda:1 --per-device 1 --out " + one);
  CHECK_MESSAGE(a.code == 0, a.err);
  const test::Outcome b = on_fake(study + "--device cuda --per-device 3 --out " + many);
  CHECK_MESSAGE(b.code == 0, b.err);
  CHECK(b.out.find("tokens/s") != std::string::npos);
  CHECK(b.out.find("peak memory") != std::string::npos);
  const std::string page = read_file(many + "/report.html");
  CHECK(page.find("<th class=\"n\">tokens/s</th>") != std::string::npos);
  CHECK(page.find("<dt>device cuda:1</dt>") != std::string::npos);
  CHECK(page.find("<dt>runs side by side</dt><dd><code>6</code>") != std::string::npos);

  const auto first = run_folders(one), second = run_folders(many);
  REQUIRE(first.size() == 6);
  REQUIRE(second.size() == 6);
  std::set<std::string> devices;
  for (size_t i = 0; i < first.size(); ++i) {
    CHECK(fs::path(first[i]).filename() == fs::path(second[i]).filename());
    check_same(first[i], second[i]);
    CHECK(load_config(first[i] + "/config.toml").model.device == "cuda:1");
    CHECK(text(read_json(first[i] + "/record.json"), "command").find("--device cuda:1") !=
          std::string::npos);
    devices.insert(load_config(second[i] + "/config.toml").model.device);
    CHECK(load_config(second[i] + "/config.toml").train.threads >= 1);
  }
  CHECK(devices == std::set<std::string>{"cuda:0", "cuda:1"});
}

TEST_CASE("a study whose device is lost keeps what is good and goes on from there") {
  const test::TempFolder folder;
  const std::string calm = folder / "calm", hit = folder / "hit";
  const std::string study = folder.write(
      "study.toml",
      "[model]\npattern = \"--\"\n[ablate]\nseeds = 2\nper_device = \"auto\"\njobs = 2\n"
      "grid = { \"model.device\" = [\"cuda:0\", \"cuda:1\"] }\n");
  const std::string command = "ablate " + study + " --per-device 1 " + kSmall + "--json --out ";
  REQUIRE(on_fake(command + calm).code == 0);
  const test::Outcome o = on_fake(command + hit, "STRATA_FAKE_FAILS='lost 0 100'");
  CHECK(o.code == 1);
  CHECK(o.out.find("\"not run\"") != std::string::npos);
  CHECK(o.out.find("\"device cuda:0 was lost\"") != std::string::npos);
  CHECK(o.out.find("device cuda:0 was lost at or before ") != std::string::npos);
  size_t ok = 0;
  for (const std::string& run : run_folders(hit)) ok += read_summary(run).value().outcome == "ok";
  CHECK(ok == 2);

  REQUIRE(on_fake(command + hit).code == 0);
  const auto first = run_folders(calm), second = run_folders(hit);
  REQUIRE(second.size() == 4);
  for (size_t i = 0; i < first.size(); ++i) check_same(first[i], second[i]);
}

TEST_CASE("a study without its device says so before the first run") {
  const test::TempFolder folder;
  const std::string study = "ablate --patterns=- --seeds 1 " + kSmall + "--out " + (folder / "out");
  const test::Outcome none = on_fake(study + " --device cuda", "STRATA_FAKE_DEVICES=0");
  CHECK(none.code == 3);
  CHECK(none.err.find("strata: device cuda: no fake device; strata doctor lists what is here\n") ==
        0);
  const test::Outcome missing = on_fake(study + " --device cuda:1,cuda:5");
  CHECK(missing.code == 3);
  CHECK(missing.err.find("strata: device cuda:5: there is no such device") == 0);
  CHECK(on_fake(study + " --device cuda:1,cpu").code == 2);
  CHECK(!fs::exists(folder / "out"));
}

TEST_CASE("a dry run says how many runs the devices hold") {
  const std::string study = "ablate --patterns=- --patterns=-- --seeds 3 " + kSmall + "--dry-run ";
  const auto jobs = [&](const std::string& arguments, const std::string& environment) {
    const test::Outcome o = on_fake(study + "--json --device cuda " + arguments, environment);
    REQUIRE_MESSAGE(o.code == 0, o.err);
    return parse_json(o.out, "json").at("jobs", "json").as_int("jobs");
  };
  CHECK(jobs("", "STRATA_FAKE_MIB=100000") == 6);                // no more than there are runs
  CHECK(jobs("--per-device 2", "STRATA_FAKE_MIB=100000") == 4);  // on two devices
  CHECK(jobs("--per-device auto", "STRATA_FAKE_MIB=1700") == 4);
  CHECK(jobs("--jobs 3", "STRATA_FAKE_MIB=100000") == 3);
}
