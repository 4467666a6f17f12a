// The arithmetic behind experiments/studies/nemotron_h_paper.md, and the rule of that page: no
// verdict without something that shows it.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include "core/io/file.h"
#include "core/model/pattern.h"
#include "experiments/ablate/statistics.h"

using namespace strata;
using doctest::Approx;

namespace {

// NVIDIA-Nemotron-Nano-9B-v2, from its published config.json.
constexpr int64_t kVocab = 131072, kModel = 4480, kHidden = 15680;
constexpr int64_t kHeads = 128, kHeadDim = 80, kGroups = 8, kState = 128, kConv = 4;
constexpr int64_t kQueryHeads = 40, kKvHeads = 8, kAttentionDim = 128;
constexpr int64_t kInner = kHeads * kHeadDim;
constexpr int64_t kConvWidth = kInner + 2 * kGroups * kState;
constexpr int64_t kInProj = 2 * kInner + 2 * kGroups * kState + kHeads;
constexpr const char* kPattern = "(M-)^3M(M-)^3M*-(M-)^2M*-((M-)^3M*-)^2M-M(M-)^6";

int64_t parameters() {
  const std::map<std::string, int64_t> block{
      {"M", kInProj * kModel + kConvWidth * (kConv + 1) + 3 * kHeads + kInner + kInner * kModel},
      {"-", 2 * kModel * kHidden},
      {"*", 2 * kQueryHeads * kAttentionDim * kModel + 2 * kKvHeads * kAttentionDim * kModel}};
  int64_t sum = 2 * kVocab * kModel + kModel;  // embedding, head, final norm
  for (const BlockSpec& each : expand_pattern(kPattern).blocks)
    sum += block.at(each.symbol) + kModel;
  return sum;
}

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

}  // namespace

TEST_CASE("the paper's page has no verdict without a command, and its commands name real tests") {
  const std::set<std::string> verdicts{"holds", "corrected", "refuted",
                                       "cannot be tested without weights"};
  const auto rows = page_rows();
  const auto tests = test_names();
  CHECK(rows.size() >= 25);
  const std::regex command(R"re(`(strata_tests -tc='([^']*)'|strata [^`]+|\./dev [^`]+)`)re");
  for (const PageRow& row : rows) {
    CAPTURE(row.place);
    if (row.verdict == "open") {
      CHECK(row.shown_by == "");
      continue;
    }
    CHECK(verdicts.count(row.verdict) == 1);
    std::smatch found;
    REQUIRE(std::regex_search(row.shown_by, found, command));
    if (!found[2].matched) continue;
    std::string wanted = found[2];
    const bool prefix = wanted.ends_with('*');
    if (prefix) wanted.pop_back();
    bool exists = false;
    for (const std::string& test : tests)
      exists |= prefix ? test.starts_with(wanted) : test == wanted;
    CHECK_MESSAGE(exists, wanted);
  }
}

TEST_CASE("paper: parameters of Nemotron-Nano-9B-v2") { CHECK(parameters() == 8'888'227'328); }

TEST_CASE("paper: shapes of a Mamba-2 block") {
  CHECK(kInProj == 22656);
  CHECK(kInProj == 2 * 10240 + 2 * 8 * 128 + 128);
  CHECK(2 * kInner == 20480);
  CHECK(2 * kConvWidth == 24576);
  CHECK(kConvWidth == 12288);
}

TEST_CASE("paper: groups are interleaved over heads") {
  for (int64_t h = 0; h < kHeads; ++h) {
    std::vector<int64_t> interleaved;  // torch.repeat_interleave(groups, n_heads / n_groups)
    for (int64_t g = 0; g < kGroups; ++g)
      interleaved.insert(interleaved.end(), size_t(kHeads / kGroups), g);
    CHECK(interleaved[size_t(h)] == h / (kHeads / kGroups));
  }
  CHECK(3 % kGroups != 3 / (kHeads / kGroups));  // tiling reads another group
}

TEST_CASE("paper: memory and work against context") {
  const double n = 131072, GB = 1e9;
  const int64_t kv = 4 * 2 * kKvHeads * kAttentionDim * 2;  // bytes a token, bf16
  CHECK(kv == 16 * 1024);
  const double state = 27.0 * 4 * (kInner * kState + kConvWidth * (kConv - 1));
  const double weights = 2.0 * double(parameters());
  CHECK(weights / GB == Approx(17.8).epsilon(0.01));
  CHECK(double(kv) * n / GB == Approx(2.15).epsilon(0.01));
  CHECK(state / GB == Approx(0.14).epsilon(0.05));
  const double hybrid = weights + double(kv) * n + state;
  const double llama = 2 * 8'030'261'248.0 + 32 * 2 * 8 * 128 * 2 * n;  // Llama-3.1-8B
  CHECK(hybrid / GB == Approx(20.1).epsilon(0.01));
  CHECK(llama / GB == Approx(33.2).epsilon(0.01));
  CHECK(hybrid / llama - 1 == Approx(-0.40).epsilon(0.02));

  const double linear = 2.0 * double(parameters() - kVocab * kModel);        // FLOPs a token
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
  CHECK(100.0 * double(adapters) / double(parameters()) == Approx(0.181).epsilon(0.003));
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
