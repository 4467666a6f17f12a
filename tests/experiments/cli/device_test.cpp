// --device: what is refused without one, and, on a machine that has one, the same numbers there.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using strata::test::Outcome;

namespace {

const std::string kRun =
    "run --pattern M-M*E --task mqar --d-model 32 --batch-size 4 --threads 1 --quiet "
    "--set task.eval_size=8 --set task.seq_len=32 --set task.n_pairs=4 --set train.log_every=1 "
    "--set layers.M.head_dim=16 --set layers.*.n_heads=2 ";

bool has_cuda() {
  return strata::test::strata("doctor").out.find("ok       cuda:0") != std::string::npos;
}

std::vector<double> losses(const std::string& folder) {
  std::vector<double> out;
  std::istringstream lines(strata::read_file(folder + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const strata::Json row = strata::parse_json(line, "metrics.jsonl");
    if (const strata::Json* loss = row.find("loss")) out.push_back(loss->as_double("loss"));
  }
  return out;
}

}  // namespace

TEST_CASE("doctor says what is here and what is missing") {
  const Outcome o = strata::test::strata("doctor");
  CHECK(o.code == 0);
  CHECK(o.out.find("ok       cpu") == 0);
  CHECK(o.out.find("plugin mamba2") != std::string::npos);
  CHECK(o.out.find("cuda") != std::string::npos);
}

TEST_CASE("a device that is not there is one sentence and an exit code") {
  const strata::test::TempFolder folder;
  const std::string out = " --out " + (folder / "run");
  const Outcome unknown = strata::test::strata(kRun + "--steps 1 --device tpu" + out);
  CHECK(unknown.code == 2);
  CHECK(unknown.err.find("the device must be cpu, cuda or cuda:NUMBER, got 'tpu'") !=
        std::string::npos);
  for (const std::string& command :
       {"run --pattern M --task mqar --steps 1" + out, std::string("check-layer mlp")}) {
    const Outcome absent = strata::test::strata(command + " --device cuda:99");
    CAPTURE(absent.err);
    CHECK(absent.code == 3);
    CHECK(absent.err.starts_with("strata: "));
    CHECK(std::count(absent.err.begin(), absent.err.end(), '\n') == 1);
  }
}

TEST_CASE("a device trains as the CPU does, and a run moves between them") {
  const strata::test::TempFolder folder;
  if (!has_cuda()) {
    MESSAGE("no CUDA device here");
    CHECK(strata::test::strata(kRun + "--steps 1 --device cuda --out " + (folder / "run")).code ==
          3);
    return;
  }
  const std::string cpu = folder / "cpu", cuda = folder / "cuda", moved = folder / "moved";
  REQUIRE(strata::test::strata(kRun + "--steps 40 --out " + cpu).code == 0);
  REQUIRE(strata::test::strata(kRun + "--steps 40 --device cuda --out " + cuda).code == 0);
  REQUIRE(strata::test::strata(kRun + "--steps 40 --set train.checkpoint_every=20 --out " + moved)
              .code == 0);
  const std::vector<double> here = losses(cpu), there = losses(cuda);
  REQUIRE(here.size() == there.size());
  for (size_t i = 0; i < here.size(); ++i) CHECK(std::abs(there[i] / here[i] - 1) < 1e-4);
  CHECK(strata::test::strata(kRun + "--steps 60 --device cuda --resume auto --out " + moved).code ==
        0);
}
