// The arithmetic behind experiments/studies/nemotron_h_paper.md, and the rule of that page: no
// verdict without something that shows it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include "core/io/file.h"
#include "core/model/model.h"
#include "core/model/sampler.h"
#include "experiments/ablate/statistics.h"
#include "plugins/host/registry.h"

using namespace strata;
using doctest::Approx;

namespace {

// The shapes of NVIDIA-Nemotron-Nano-9B-v2, assembled with the tree's plugins and never allocated.
struct Nano {
  Registry registry{{}, STRATA_BINARY_DIR "/plugins"};
  Model model{load_config(STRATA_SOURCE_DIR "/configs/models/nemotron_nano_9b_v2.toml"), registry};
  const Shape& shape(const std::string& name) { return model.params().at(name).slot->shape; }
};

// Its numbers that the arithmetic below needs.
constexpr int64_t kVocab = 131072, kModel = 4480, kHidden = 15680;
constexpr int64_t kHeads = 128, kHeadDim = 80, kGroups = 8, kState = 128;
constexpr int64_t kQueryHeads = 40, kAttentionDim = 128;
constexpr int64_t kParameters = 8'888'227'328;

struct PageRow {
  std::string place, verdict, shown_by;
};

std::vector<PageRow> page_rows() {
  std::istringstream page(read_file(STRATA_SOURCE_DIR "/experiments/studies/nemotron_h_paper.md"));
  std::vector<PageRow> rows;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("|") || line.starts_with("|---") || line.starts_with("| place")) continue;
    std::vector<std::string> cells;
    std::string cell;
    for (char c : line.substr(1)) {
      if (c != '|') {
        cell += c;
        continue;
      }
      const size_t first = cell.find_first_not_of(' ');
      cells.push_back(first == std::string::npos
                          ? ""
                          : cell.substr(first, cell.find_last_not_of(' ') - first + 1));
      cell.clear();
    }
    REQUIRE_MESSAGE(cells.size() == 5, line);
    rows.push_back({cells[0], cells[3], cells[4]});
  }
  return rows;
}

// Every test case's name in the tree.
std::vector<std::string> test_names() {
  std::vector<std::string> names;
  const std::regex name(R"re(TEST_CASE(?:_TEMPLATE)?\(\s*"([^"]*)")re");
  for (const char* folder : {"/tests", "/layers"})
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(std::string(STRATA_SOURCE_DIR) + folder)) {
      if (!entry.path().string().ends_with("_test.cpp")) continue;
      const std::string text = read_file(entry.path().string());
      for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it)
        names.push_back((*it)[1]);
    }
  return names;
}

// What stands between backquotes.
std::vector<std::string> commands_of(const std::string& cell) {
  std::vector<std::string> commands;
  const std::regex quoted("`([^`]+)`");
  for (std::sregex_iterator it(cell.begin(), cell.end(), quoted), end; it != end; ++it)
    commands.push_back((*it)[1]);
  return commands;
}

// Whether a command names a test, a file or a command that exists.
bool can_run(const std::string& line, const std::vector<std::string>& tests) {
  std::smatch part;
  if (std::regex_match(line, part, std::regex("strata_tests -tc='([^']*)'"))) {
    std::string wanted = part[1];
    if (wanted.find(',') != std::string::npos) return false;  // doctest takes it as two names
    const bool prefix = wanted.ends_with('*');
    if (prefix) wanted.pop_back();
    return std::any_of(tests.begin(), tests.end(), [&](const std::string& test) {
      return prefix ? test.starts_with(wanted) : test == wanted;
    });
  }
  if (std::regex_match(line, part, std::regex("strata [a-z-]+ ((?:configs|tests)/\\S+).*")))
    return std::filesystem::exists(STRATA_SOURCE_DIR "/" + part[1].str());
  return line == "strata layers";
}

}  // namespace

TEST_CASE("the paper's page has no verdict without a command, and its commands name real tests") {
  const std::set<std::string> verdicts{"holds", "corrected", "refuted",
                                       "cannot be tested without weights"};
  const auto rows = page_rows();
  const auto tests = test_names();
  CHECK(rows.size() >= 25);
  for (const PageRow& row : rows) {
    CAPTURE(row.place);
    if (row.verdict == "open") {
      CHECK(row.shown_by.starts_with("to come: "));
      continue;
    }
    CHECK(verdicts.count(row.verdict) == 1);
    const std::vector<std::string> commands = commands_of(row.shown_by);
    CHECK(!commands.empty());
    for (const std::string& line : commands) CHECK_MESSAGE(can_run(line, tests), line);
  }
}

TEST_CASE("paper: parameters of Nemotron-Nano-9B-v2") {
  Nano nano;
  CHECK(nano.model.params().count() == kParameters);
  CHECK(nano.shape("embed.weight") == Shape{kVocab, kModel});
  CHECK(symbol_summary(nano.model.expansion()) == "27 M, 25 -, 4 *");
}

TEST_CASE("paper: shapes of a Mamba-2 block") {
  Nano nano;
  const int64_t d_inner = kHeads * kHeadDim, conv = d_inner + 2 * kGroups * kState;
  CHECK(nano.shape("blocks.0.mixer.in_proj") == Shape{22656, kModel});
  CHECK(22656 == 2 * d_inner + 2 * kGroups * kState + kHeads);
  CHECK(2 * d_inner == 20480);
  CHECK(2 * conv == 24576);
  CHECK(nano.shape("blocks.0.mixer.conv1d.bias") == Shape{12288});
  CHECK(conv == 12288);
}

TEST_CASE("paper: memory and work against context") {
  Nano nano;
  const CacheLayout& cache = nano.model.cache_layout();
  const double n = 131072, GB = 1e9;
  // The model is assembled in float32; the page speaks of bf16.
  const double kv = double(cache.token_bytes()) / 2;  // bytes a token
  CHECK(kv == 16 * 1024);
  const double weights = 2.0 * double(nano.model.params().count());
  const double state = double(cache.slot_bytes);  // the scan's state is float32 in every mode
  CHECK(weights / GB == Approx(17.8).epsilon(0.01));
  CHECK(kv * n / GB == Approx(2.15).epsilon(0.01));
  CHECK(state / GB == Approx(0.14).epsilon(0.05));
  const double hybrid = weights + kv * n + state;
  const double llama = 2 * 8'030'261'248.0 + 32 * 2 * 8 * 128 * 2 * n;  // Llama-3.1-8B
  CHECK(hybrid / GB == Approx(20.1).epsilon(0.01));
  CHECK(llama / GB == Approx(33.2).epsilon(0.01));
  CHECK(hybrid / llama - 1 == Approx(-0.40).epsilon(0.02));

  const double linear = 2.0 * double(kParameters - kVocab * kModel);         // FLOPs a token
  const double slope = 4 * 2 * 2 * double(kQueryHeads * kAttentionDim) / 2;  // causal half, per n
  CHECK(slope * n / (slope * n + linear) == Approx(0.24).epsilon(0.03));
  CHECK(linear / slope == Approx(405'000).epsilon(0.01));
}

TEST_CASE("paper: percentages and sums") {
  CHECK(19.0 / 28 - 1 == Approx(-0.32).epsilon(0.01));
  CHECK(9.4 / 18 - 1 == Approx(-0.478).epsilon(0.01));
  CHECK(131072.0 / 4096 - 1 == 31.0);  // +3,100%
  CHECK(9.4 + 0.05 + 8 == Approx(17.45));
}

TEST_CASE("paper: the FP8 formula overflows int8 and is no FP8") {
  const double largest = 0.37, scale = largest / 127;
  const double q = std::round(largest / scale * 128);
  CHECK(q == 16256);
  CHECK(q > 127);                             // int8
  CHECK(q > 448);                             // the largest FP8 E4M3 value
  CHECK(std::round(largest / scale) == 127);  // absmax int8
}

TEST_CASE("paper: adapters on the up and down projections") {
  const int64_t rank = 16, adapters = 25 * 2 * rank * (kModel + kHidden);
  CHECK(adapters == 16'128'000);
  CHECK(100.0 * double(adapters) / double(kParameters) == Approx(0.181).epsilon(0.003));
}

TEST_CASE("paper: intervals of small benchmarks") {
  const struct {
    int64_t hits, n;
    double low, high;
  } kRows[] = {{10, 10, 72, 100}, {9, 10, 60, 98}, {39, 40, 87, 100}, {4, 4, 51, 100}};
  for (const auto& row : kRows) {
    const auto [low, high] = wilson_interval(row.hits, row.n);
    CHECK(std::lround(100 * low) == row.low);
    CHECK(std::lround(100 * high) == row.high);
  }
}

TEST_CASE("paper: a low temperature still draws") {
  const std::vector<double> logits{1.0, 0.99, -5.0};
  const auto draws = [&](double temperature) {
    std::set<int32_t> seen;
    for (uint64_t i = 0; i < 200; ++i) {
      Random random(1, 2, i);
      seen.insert(sample(logits, {.temperature = temperature}, random));
    }
    return seen;
  };
  CHECK(draws(0.0) == std::set<int32_t>{0});
  CHECK(draws(0.1) == std::set<int32_t>{0, 1});
}
