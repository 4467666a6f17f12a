#include "experiments/ablate/expand.h"

#include <doctest/doctest.h>

#include <set>

#include "experiments/tasks/task.h"
#include "tests/support/error_text.h"

using namespace strata;

namespace {

StudyPlan plan(const std::string& ablate, std::vector<Override> overrides = {}) {
  return plan_study(
      {"[model]\npattern = \"M\"\nd_model = 32\n[task]\nname = \"mqar\"\n[train]\n"
       "threads = 1\n[ablate]\n" +
           ablate,
       "study.toml", std::move(overrides), resolve_task});
}

std::string message(const std::string& ablate) {
  return test::error_text([&] { plan(ablate); });
}

}  // namespace

TEST_CASE("patterns, grid and variants multiply, every one with every seed") {
  const StudyPlan p = plan(
      "patterns = [\"M\", \"M*\"]\ngrid = { \"train.lr\" = [1e-3, 3e-3, 1e-2] }\nseeds = [4, 7]\n"
      "baseline = \"M* lr=0.003\"");
  REQUIRE(p.variants.size() == 6);
  CHECK(p.runs.size() == 12);
  CHECK(p.variants[p.baseline].name == "M* lr=0.003");
  CHECK(p.runs[0].seed == 4);
  CHECK(p.runs[6].seed == 7);
  const StudyRun& run = p.runs[10];  // second seed, fifth variant
  CHECK(run.config.model.pattern == "M*");
  CHECK(run.config.train.lr == 3e-3);
  CHECK(run.config.train.seed == 7);
  CHECK(run.config.ablate.patterns.empty());
  std::set<std::string> folders;
  for (const StudyRun& each : p.runs) folders.insert(each.folder);
  CHECK(folders.size() == 12);
}

TEST_CASE("variants carry their own overrides and bounds") {
  const StudyPlan p = plan(
      "seeds = 3\nvariants = [\n"
      "{ name = \"hybrid\", pattern = \"M*\", layers.M.d_state = 4, expect = \">= 0.99\" },\n"
      "{ name = \"small\", pattern = \"cM\", train.lr = 1e-2, expect = \"<= 0.15\" } ]");
  REQUIRE(p.variants.size() == 2);
  CHECK(p.runs.size() == 6);
  CHECK(p.variants[1].expect == "<= 0.15");
  CHECK(p.runs[0].config.model.pattern == "M*");
  CHECK(p.runs[0].config.layers.at("M").count("d_state") == 1);
  CHECK(p.runs[1].config.train.lr == 1e-2);
  CHECK(p.runs[1].config.layers.count("M") == 0);
}

TEST_CASE("a run's folder depends on what is learned, not on how it is logged") {
  const StudyPlan a = plan("seeds = 1"), b = plan("seeds = 1", {{"train.log_every", "3"}}),
                  c = plan("seeds = 1", {{"train.lr", "0.5"}});
  CHECK(a.runs[0].folder == b.runs[0].folder);
  CHECK(a.runs[0].folder != c.runs[0].folder);
  CHECK(a.runs[0].folder.find('/') == std::string::npos);
}

TEST_CASE("the number of runs that share a device is a number or auto") {
  CHECK(plan("seeds = 1").base.ablate.per_device == 0);
  CHECK(plan("per_device = \"auto\"").base.ablate.per_device == 0);
  CHECK(plan("per_device = 12").base.ablate.per_device == 12);
  CHECK(message("per_device = \"many\"").find("an integer or \"auto\", got \"many\"") !=
        std::string::npos);
  CHECK(message("per_device = -1").find("per_device") != std::string::npos);
}

TEST_CASE("mistakes in a study are named") {
  CHECK(message("baseline = \"m\"").find("which is no variant") != std::string::npos);
  CHECK(message("seeds = [1, 1]").find("distinct") != std::string::npos);
  CHECK(message("patterns = [\"M\", \"M\"]").find("two variants named 'M'") != std::string::npos);
  CHECK(message("variants = [{ name = \"a\", expect = \"good\" }]").find("expect must") !=
        std::string::npos);
  CHECK(message("grid = { \"train.lrr\" = [1] }").find("variant 'lrr=1': ") != std::string::npos);
}
