// strata ablate as a user types it: the built program, its plugins and real runs.
#include <doctest/doctest.h>

#include <filesystem>

#include "core/io/file.h"
#include "core/io/json.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using test::Outcome;

namespace {

namespace fs = std::filesystem;

const std::string kSmall =
    "--task mqar --steps 12 --d-model 16 --batch-size 4 --threads 1 --set train.eval_every=6 "
    "--set task.eval_size=8 ";

size_t runs_in(const std::string& folder) {
  size_t n = 0;
  for (const auto& entry : fs::directory_iterator(folder + "/runs"))
    n += fs::exists(entry.path() / "result.json");
  return n;
}

}  // namespace

TEST_CASE("strata ablate: patterns from the command line become a table, a page and an index") {
  const test::TempFolder folder;
  const std::string out = folder / "study";
  const std::string command =
      "ablate --patterns 'c-' 'M-' --seeds 2 " + kSmall + "--out " + out + " ";
  const Outcome first = test::strata(command);
  CHECK_MESSAGE(first.code == 0, first.err);
  CHECK(first.out.find("c-") != std::string::npos);
  CHECK(first.out.find("baseline") != std::string::npos);
  CHECK(first.out.find('\033') == std::string::npos);
  CHECK(first.err.find("✓ M-  seed 1  accuracy") != std::string::npos);
  for (const char* file : {"report.html", "table.csv", "runs.csv", "curves.csv", "index.sqlite"})
    CHECK(fs::is_regular_file(out + "/" + file));
  CHECK(runs_in(out) == 4);
  const std::string page = read_file(out + "/report.html");
  CHECK(page.find("title=\"mamba2\">M</span>") != std::string::npos);
  CHECK(page.find("<polyline") != std::string::npos);

  // Again: nothing is trained anew, and the numbers are the same.
  const auto before = fs::last_write_time(out + "/runs");
  const Outcome second = test::strata(command + "--json --quiet");
  CHECK(second.code == 0);
  CHECK(second.err == "");
  CHECK(fs::last_write_time(out + "/runs") == before);
  const Json json = parse_json(second.out, "json");
  const Json& rows = json.at("variants", "json");
  REQUIRE(rows.as_array("variants").size() == 2);
  const Json& row = rows.as_array("variants")[1];
  CHECK(row.at("pattern", "row").as_string("pattern") == "M-");
  CHECK(row.at("metric", "row").at("n", "metric").as_int("n") == 2);
  CHECK(row.at("parameters", "row").as_int("parameters") > 1000);
}

TEST_CASE("strata ablate: a dry run says sizes and time and writes nothing") {
  const test::TempFolder folder;
  const std::string out = folder / "study";
  const Outcome dry = test::strata("ablate --patterns 'c-' 'M{d_state=4}-' --seeds 3 " + kSmall +
                                   "--dry-run --json --out " + out);
  CHECK_MESSAGE(dry.code == 0, dry.err);
  const Json json = parse_json(dry.out, "json");
  CHECK(json.at("variants", "json").as_array("variants").size() == 2);
  const Json& row = json.at("variants", "json").as_array("variants")[1];
  CHECK(row.at("bytes", "row").as_int("bytes") > 10'000);
  CHECK(row.at("seconds", "row").as_double("seconds") > 0);
  CHECK(row.at("runs", "row").as_int("runs") == 3);
  CHECK(!fs::exists(out));
}

TEST_CASE("strata ablate: a missed expectation is exit code 1, a mistake is 2 before any run") {
  const test::TempFolder folder;
  const std::string study = folder.write(
      "study.toml",
      "[model]\npattern = \"c\"\nd_model = 16\n[task]\nname = \"induction\"\n[train]\nsteps = 4\n"
      "batch_size = 4\nthreads = 1\n[ablate]\nseeds = 1\n"
      "variants = [{ name = \"good\", expect = \"<= 1\" }, { name = \"bad\", expect = \"> 1\" "
      "}]\n");
  const std::string out = folder / "out";
  const Outcome missed = test::strata("ablate " + study + " --out " + out);
  CHECK(missed.code == 1);
  CHECK(missed.out.find("> 1 ✗") != std::string::npos);

  const Outcome unknown =
      test::strata("ablate " + study + " --set model.pattern='\"cQ\"' --out " + out + "2");
  CHECK(unknown.code == 2);
  CHECK(unknown.err.find("'Q'") != std::string::npos);
  CHECK(!fs::exists(out + "2"));
  CHECK(test::strata("ablate --patterns 'c' 'c' --task mqar").code == 2);
  CHECK(test::strata("ablate " + (folder / "none.toml")).code == 2);
}
