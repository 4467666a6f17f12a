#include "plugins/kit/new_layer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>

#include "core/io/json.h"
#include "tests/experiments/cli/program.h"
#include "tests/plugins/host/planted.h"

using namespace strata;

namespace {

// A shell command, with what it printed.
test::Outcome shell(const std::string& command) {
  test::Outcome result;
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    result.out.append(buffer, n);
  result.code = WEXITSTATUS(::pclose(pipe));
  return result;
}

// Whether a row of the study is this pattern on this task.
bool holds(const std::set<std::string>& rows, const std::string& pattern, const std::string& task) {
  return std::any_of(rows.begin(), rows.end(), [&](const std::string& row) {
    return row.starts_with(pattern + " ") && row.find(task) != std::string::npos;
  });
}

}  // namespace

TEST_CASE("names, symbols and folders that cannot be are refused") {
  const planted::Folder folder;
  for (const char* name : {"", "Gru", "2x", "a-b", "x y"})
    CHECK_THROWS_AS(new_layer({name, "U", folder.str() + "/n", false}), Error);
  for (const char* symbol : {"", "UU", "(", "3", " "})
    CHECK_THROWS_AS(new_layer({"gru", symbol, folder.str() + "/n", false}), Error);
  folder.write("there", "already");
  CHECK_THROWS_WITH_AS(new_layer({"gru", "U", folder.str(), false}),
                       doctest::Contains("holds something already"), Error);
}

TEST_CASE("a scaffolded layer holds its name everywhere and no mark of the template") {
  const planted::Folder folder;
  for (const bool kernel : {false, true}) {
    const std::string out = folder.str() + (kernel ? "/k" : "/l");
    const auto files = new_layer({"short_mix", "U", out, kernel});
    CHECK(files.size() == (kernel ? 8 : 5));
    for (const std::string& file : files) {
      const std::string text = planted::bytes_of(file);
      CHECK(text.find('@') == std::string::npos);
      CHECK(text.size() > 100);
    }
    const std::string layer = planted::bytes_of(out + "/short_mix.cpp");
    CHECK(layer.find("STRATA_LAYER(ShortMix, 'U', \"short_mix\")") != std::string::npos);
  }
}

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;  // everything takes about twenty times as long
#else
constexpr bool kSanitized = false;
#endif

// The author's whole path as the scaffold's README gives it; five minutes on two cores are allowed.
TEST_CASE(
    "a scaffolded layer builds outside the tree, passes its checks and its test, and is studied") {
  const planted::Folder folder;
  const auto start = std::chrono::steady_clock::now();
  for (const bool kernel : {false, true}) {
    CAPTURE(kernel);
    const std::string name = kernel ? "kit_scan" : "kit_mix", symbol = kernel ? "Y" : "Z";
    const std::string out = folder.str() + "/" + name, build = out + "/build";
    const auto written = test::strata("new-layer " + name + " --symbol " + symbol + " --out " +
                                      out + (kernel ? " --kernel" : ""));
    CHECK_MESSAGE(written.code == 0, written.err);
    const auto built =
        shell("cmake -S " + out + " -B " + build + " -DCMAKE_PREFIX_PATH=" + STRATA_BINARY_DIR +
              " && cmake --build " + build);
    REQUIRE_MESSAGE(built.code == 0, built.out);
    const auto checked = test::strata("check-layer " + build + "/" + name + ".so");
    CHECK_MESSAGE(checked.code == 0, (checked.out + checked.err));
    CHECK(checked.out.find("ok       decode") != std::string::npos);
    CHECK(checked.out.find("FAIL") == std::string::npos);
    const auto listed = test::strata("layers --plugin-path " + build);
    CHECK(listed.out.find(name) != std::string::npos);
    const auto tested = shell("ctest --test-dir " + build + " --output-on-failure");
    CHECK_MESSAGE(tested.code == 0, tested.out);
    // The study as it is written, with fewer steps for the second scaffold, whose study is the
    // same.
    const auto studied = test::strata("ablate " + out + "/study.toml --plugin-path " + build +
                                      " --json --quiet --out " + out + "/study" +
                                      (kernel || kSanitized ? " --set train.steps=5" : ""));
    REQUIRE_MESSAGE(studied.code == 0, studied.err);
    const Json rows = parse_json(studied.out, "study").at("variants", "study");
    std::set<std::string> seen;
    for (const Json& row : rows.as_array("variants")) {
      seen.insert(row.at("pattern", "row").as_string("pattern") + " " +
                  row.at("name", "row").as_string("name"));
      CHECK(row.at("metric", "row").at("n", "metric").as_int("n") == 2);
    }
    for (const std::string pattern : {"cM", "c*", "cc"})
      for (const std::string task : {"mqar", "induction"})
        CHECK_MESSAGE(holds(seen, pattern, task), (pattern + " on " + task));
    for (const std::string task : {"mqar", "induction"}) CHECK(holds(seen, "c" + symbol, task));
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK((kSanitized || took.count() < 300));
}

TEST_CASE("a symbol or a name that is taken is refused with its owner, before a file is written") {
  const planted::Folder folder;
  const std::string out = folder.str() + "/new";
  const auto symbol = test::strata("new-layer gru --symbol M --out " + out);
  CHECK(symbol.code == 2);
  CHECK(symbol.err.find("the symbol 'M' belongs to mamba2") != std::string::npos);
  const auto alias = test::strata("new-layer gru --symbol w --out " + out);
  CHECK(alias.code == 2);
  CHECK(alias.err.find("belongs to attention") != std::string::npos);
  const auto name = test::strata("new-layer moe --symbol U --out " + out);
  CHECK(name.code == 2);
  CHECK(name.err.find("a layer named 'moe' is in") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("check-layer names the failed line and its exit code says so") {
  const auto wrong = test::strata("check-layer " + planted::path("planted_gradient"));
  CHECK(wrong.code == 1);
  CHECK(wrong.out.find("FAIL     gradient a") != std::string::npos);
  CHECK(wrong.out.find("1 failed") != std::string::npos);
  const auto abi = test::strata("check-layer " + planted::path("planted_abi"));
  CHECK(abi.code == 2);
  CHECK(abi.err.find("built for ABI 2.0, this strata has 1.0") != std::string::npos);
  const auto unknown = test::strata("check-layer mamba3");
  CHECK(unknown.code == 2);
  const auto json =
      test::strata("--json check-layer " + planted::path("planted_none") + " --set high=0.5");
  CHECK(json.code == 0);
  CHECK(json.out.find("\"check\": \"decode\"") != std::string::npos);
}
