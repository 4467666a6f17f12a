#include "plugins/kit/kit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "plugins/host/registry.h"
#include "tests/plugins/host/planted.h"

using namespace strata;

namespace {

std::vector<CheckRow> check(const std::string& plugin) {
  Registry registry({planted::path(plugin)}, "");
  return check_layer(registry, plugin);
}

std::string failures(const std::vector<CheckRow>& rows) {
  std::string text;
  for (const CheckRow& r : rows)
    if (r.verdict == CheckVerdict::fail) text += format_row(r) + "\n";
  return text;
}

}  // namespace

TEST_CASE("a right layer passes every check") {
  const auto rows = check("planted_none");
  CHECK(failures(rows) == "");
  CHECK(all_passed(rows));
  CHECK(rows.size() > 20);
}

TEST_CASE("every planted fault is caught by its line") {
  const std::map<std::string, std::string> caught = {
      {"gradient", "gradient a"},
      {"input_gradient", "gradient x"},
      {"accumulate", "gradients add up"},
      {"state", "decode"},
      {"state_padding", "state bounds"},
      {"documents", "documents forward"},
      {"document_gradient", "documents backward"},
      {"value", "values"},
      {"planning", "planning"},
      {"nondeterministic", "determinism"},
      {"shared", "called twice"},
      {"declared", "state declared"},
      {"backward_hook", "own backward"},
      {"shape", "bad shapes"},
      {"crash", "shapes"},
      {"options", "bad options"},
      {"uninitialised", "shapes"},
      {"precision", "gradient"},
      {"state_step", "decode"},
      {"forgotten_gradient", "gradient a"},
      {"missing_double", "kernels"},
      {"stale", "determinism"},
      {"foreign_exception", "throws, and no strata::Error: deque"},
  };
  for (const auto& [fault, line] : caught) {
    CAPTURE(fault);
    const std::string text = failures(check("planted_" + fault));
    CHECK_MESSAGE(text.find(line) != std::string::npos, text);
  }
}

TEST_CASE("a missing kernel is one line that names operation, type, device and file") {
  const auto rows = check("planted_missing_double");
  CHECK(
      failures(rows) ==
      "FAIL     kernels                                                   operation "
      "'planted_missing_double' has no f64 kernel on cpu; its file planted_missing_double_cpu was "
      "not built or not loaded\n");
  CHECK(rows.size() > 10);  // the others are said to be skipped
}

TEST_CASE("a crash is a failed row that says where, and the checks after it still run") {
  const auto rows = check("planted_crash");
  const auto crashed =
      std::find_if(rows.begin(), rows.end(), [](const CheckRow& r) { return r.check == "shapes"; });
  REQUIRE(crashed != rows.end());
  CHECK(crashed->note.find("crashes at batch 3, seq_len 33") != std::string::npos);
  CHECK(std::any_of(rows.begin(), rows.end(), [](const CheckRow& r) {
    return r.check == "decode" && r.verdict == CheckVerdict::ok;
  }));
}

TEST_CASE("a constructor that crashes is a failed row") {
  const auto rows = check("planted_constructor");
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].check == "assembly");
  CHECK(rows[0].note.find("crashes") != std::string::npos);
}

TEST_CASE("options that a layer refuses are an error, not a row") {
  Registry registry({planted::path("planted_none")}, "");
  KitOptions options;
  options.set["no_such"] = int64_t{1};
  CHECK_THROWS_WITH_AS(check_layer(registry, "e", options), doctest::Contains("no_such"), Error);
}
