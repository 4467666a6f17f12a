// Mistakes on the command line and in a study, as the built program answers them.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>

#include "core/io/json.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using strata::test::Outcome;

namespace {

const std::string kSmall =
    " --task mqar --steps 2 --d-model 16 --batch-size 2 --threads 1 --dry-run ";

// The sentence of a run that is refused with `code`.
std::string refused(const std::string& arguments, int code = 2) {
  CAPTURE(arguments);
  const Outcome o = strata::test::strata(arguments);
  CHECK_MESSAGE(o.code == code, o.err);
  CHECK(o.err.starts_with("strata: "));
  return o.err;
}

bool has(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CAPTURE(part);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("cli: a pattern may begin with any of its characters") {
  for (const char* pattern : {"'[M&*]'", "'[M&*:mean]-'", "'-M'", "'--'", "'<mlp>M'", "'(M-)^2'"}) {
    const Outcome o = strata::test::strata(std::string("run --json --pattern ") + pattern + kSmall);
    CHECK_MESSAGE(o.code == 0, o.err);
  }
  CHECK(has(refused("run --pattern '[M&*'" + kSmall), "this '[' is never closed"));
  CHECK(has(refused("run --pattern '{M'" + kSmall), "options must follow"));
  const Outcome many =
      strata::test::strata("ablate --json --patterns 'M-' '-M' '[M&*]' '--' --seeds 1" + kSmall);
  REQUIRE_MESSAGE(many.code == 0, many.err);
  const strata::Json json = strata::parse_json(many.out, "json");
  const auto& rows = json.at("variants", "json").as_array("variants");
  REQUIRE(rows.size() == 4);
  CHECK(rows[1].at("pattern", "row").as_string("pattern") == "-M");
  CHECK(rows[2].at("pattern", "row").as_string("pattern") == "[M&*]");
}

TEST_CASE("cli: a wrong value names the flag that it was given with") {
  CHECK(
      has(refused("run --pattern M" + kSmall + "--seed abc"), "--seed: train.seed must be an int"));
  CHECK(has(refused("run --pattern M --lr [1" + kSmall), "--lr: train.lr must be a number"));
  CHECK(has(refused("ablate --patterns M --seeds x" + kSmall), "--seeds: ablate.seeds must be"));
  CHECK(has(refused("run --pattern M --set train.lr=x" + kSmall), "--set: train.lr must be"));
  CHECK(has(refused("run --pattern M --set task.n_pairs=0" + kSmall), "from 1 to 1048576, got 0"));
}

TEST_CASE("cli: layers and recompute that name no layer are refused") {
  CHECK(has(refused("run --pattern M --set layers.mamba.d_state=8" + kSmall),
            "[layers.mamba]: no plugin has the name 'mamba'; the nearest is 'mamba2'"));
  CHECK(has(refused("run --pattern M --set layers.Z.d_state=8" + kSmall), "[layers.Z]"));
  CHECK(
      has(refused("run --pattern M --set train.recompute=blok" + kSmall), "train.recompute must"));
  for (const char* good : {"none", "block", "'[\"M\"]'", "'[\"mamba2\"]'"}) {
    const std::string set = std::string(" --set train.recompute=") + good;
    CHECK(strata::test::strata("run --pattern M- " + set + kSmall).code == 0);
  }
}

TEST_CASE("cli: short memory is exit code 3, in a dry run and in a study too") {
  CHECK(
      has(refused("run --pattern M --memory-limit 1KiB" + kSmall, 3), "memory limit is 1.00 KiB"));
  const std::string study = "ablate --patterns M '*' --seeds 1 --memory-limit 1KiB" + kSmall;
  CHECK(has(refused(study, 3), "variant 'M': the run needs"));
  CHECK(has(refused("ablate --patterns M MQ --seeds 1" + kSmall), "variant 'MQ': pattern"));
}

TEST_CASE("cli: a study may not vary its own seeds, and says where a variant is wrong") {
  const strata::test::TempFolder folder;
  const auto study = [&](const std::string& ablate) {
    return refused("ablate " +
                   folder.write("study.toml",
                                "[model]\npattern = \"M\"\n[task]\nname = \"mqar\"\n"
                                "[ablate]\n" +
                                    ablate + "\n") +
                   kSmall);
  };
  CHECK(has(study("grid = { \"train.seed\" = [1, 2] }"), "varies train.seed"));
  CHECK(has(study("variants = [{ name = \"a\", ablate.seeds = 2 }]"), "varies ablate.seeds"));
  CHECK(has(study("grid = { \"train.lrr\" = [1, 2] }"),
            "study.toml, [ablate]: unknown key train.lrr; did you mean train.lr?"));
  CHECK(has(study("variants = [{ name = \"a\", expect = \"high\" }]"), "variant 'a': expect must"));
}

TEST_CASE("cli: a run that goes on with another config says which key differs") {
  const strata::test::TempFolder folder;
  const std::string common =
      "run --pattern M- --task mqar --d-model 16 --batch-size 2 --threads 1 --resume auto --quiet "
      "--set task.eval_size=4 --set task.seq_len=32 --set task.n_pairs=4 ";
  const std::string out = "--out " + (folder / "run ");
  REQUIRE(strata::test::strata(common + out + "--steps 4").code == 0);
  CHECK(has(refused(common + "--steps 4"), "--resume auto needs --out"));
  CHECK(has(refused(common + out + "--steps 4 --set task.n_pairs=5"), "task.n_pairs = 5 (was 4)"));
  CHECK(has(refused(common + out + "--steps 4 --set layers.M.d_state=8"),
            "layers.M.d_state = 8 (was its default)"));
  CHECK(has(refused(common + out + "--steps 3"), "has made 4 steps, and train.steps is now 3"));
  CHECK(strata::test::strata(common + out + "--steps 4").code == 0);
}

TEST_CASE("cli: --json is JSON and nothing else") {
  const strata::test::TempFolder folder;
  for (const std::string& command :
       {std::string("help task"), std::string("help task mqar"), std::string("help layer"),
        std::string("help layer M"), std::string("help config"), std::string("help pattern"),
        std::string("help exit-codes"), std::string("layers"), std::string("ops"),
        std::string("inspect --pattern M"), "init " + (folder / "a"),
        "new-layer gru --symbol U --out " + (folder / "gru")}) {
    CAPTURE(command);
    const Outcome o = strata::test::strata(command + " --json");
    CHECK_MESSAGE(o.code == 0, o.err);
    CHECK_NOTHROW(strata::parse_json(o.out, "json"));
  }
}

TEST_CASE("cli: an unknown or missing subcommand names those that there are") {
  CHECK(has(refused("runn"), "did you mean run?"));
  CHECK(has(refused("help"), "there are config, task, layer, pattern, exit-codes"));
  CHECK(has(refused("help confg"), "did you mean config?"));
}

TEST_CASE("cli: a path that the file system refuses is one sentence") {
  const std::string endless(300, 'x');
  for (const std::string& command : {"inspect " + endless, "check-golden " + endless,
                                     "run --pattern M- --task mqar --steps 1 --out " + endless}) {
    const std::string said = refused(command);
    CHECK(has(said, endless));
    CHECK(has(said, "File name too long"));
    CHECK(!has(said, "unexpected"));
  }
}
