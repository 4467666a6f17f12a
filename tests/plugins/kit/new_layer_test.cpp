#include "plugins/kit/new_layer.h"

#include <doctest/doctest.h>

#include <algorithm>

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

TEST_CASE("a scaffolded layer builds outside the tree, and passes its checks and its test") {
  const planted::Folder folder;
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
  }
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
