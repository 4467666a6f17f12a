#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/model/config_schema.h"
#include "tests/experiments/cli/program.h"

using strata::test::Outcome;

namespace {

// Bad input: exit code 2 and one sentence.
std::string sentence(const std::string& arguments) {
  CAPTURE(arguments);
  const Outcome o = strata::test::strata(arguments);
  CHECK(o.code == 2);
  CHECK(o.err.starts_with("strata: "));
  CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
  return o.err;
}

}  // namespace

TEST_CASE("cli: help shows every key of the table with its default") {
  const Outcome all = strata::test::strata("help config --json");
  CHECK(all.code == 0);
  for (const strata::ConfigKey& key : strata::config_keys()) {
    CAPTURE(key.full_name());
    CHECK(all.out.find("\"" + key.full_name() + "\"") != std::string::npos);
  }
  const Outcome one = strata::test::strata("help config train.lr");
  CHECK(one.code == 0);
  CHECK(one.out.find("train.lr  number  0.001") != std::string::npos);
  CHECK(strata::test::strata("help task mqar").out.find("task.n_pairs") != std::string::npos);
  CHECK(strata::test::strata("help exit-codes").out.find("3  resources") != std::string::npos);
  CHECK(strata::test::strata("help pattern").out.find("rep") != std::string::npos);
}

TEST_CASE("cli: every command has help with an example") {
  const Outcome top = strata::test::strata("--help");
  CHECK(top.code == 0);
  for (const char* command : {"help", "init"}) {
    CAPTURE(command);
    CHECK(top.out.find(std::string("\n  ") + command + " ") != std::string::npos);
    const Outcome o = strata::test::strata(std::string(command) + " --help");
    CHECK(o.code == 0);
    CHECK(o.out.find("strata " + std::string(command)) != std::string::npos);
    CHECK(o.out.find("Example") != std::string::npos);
  }
}

TEST_CASE("cli: each mistake on the command line is one sentence and exit code 2") {
  CHECK(sentence("").find("subcommand") != std::string::npos);
  CHECK(sentence("frobnicate").find("frobnicate") != std::string::npos);
  CHECK(sentence("help config lrr").find("did you mean lr?") != std::string::npos);
  CHECK(sentence("help config --nope").find("--nope") != std::string::npos);
  CHECK(sentence("help task mqr").find("mqar") != std::string::npos);
  CHECK(sentence("init x --set train.lr=-1").find("greater than 0") != std::string::npos);
  CHECK(sentence("init x --set train.lrr=1").find("did you mean train.lr?") != std::string::npos);
  CHECK(sentence("init x --set task.pairs=1").find("n_pairs") != std::string::npos);
  CHECK(sentence("init /nonexistent/x").find("/nonexistent") != std::string::npos);
}

TEST_CASE("cli: init writes a config that reads back, and does not overwrite one") {
  const std::string path = std::string(STRATA_BINARY_DIR) + "/cli_test_init.toml";
  std::filesystem::remove(path);
  CHECK(strata::test::strata("init " + path + " --set train.steps=7").code == 0);
  const strata::Config config = strata::load_config(path);
  CHECK(config.train.steps == 7);
  CHECK(config.task.options.count("n_pairs") == 1);
  CHECK(sentence("init " + path).find("--force") != std::string::npos);
  CHECK(strata::test::strata("init --force " + path).code == 0);
  std::filesystem::remove(path);
}
