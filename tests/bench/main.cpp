#include <algorithm>
#include <cstdio>
#include <map>

#include "core/contract/error.h"
#include "tests/bench/bench.h"
#include "tests/bench/device/clock.h"
#include "tests/bench/options.h"

namespace strata::bench {

std::vector<double> medians(const std::vector<std::function<void()>>& functions, int rounds) {
  std::vector<int> repeats;
  for (const auto& f : functions) {
    f();
    const double start = seconds_now();
    f();
    const double once = seconds_now() - start;
    repeats.push_back(std::clamp(int(2e-3 / std::max(once, 1e-7)), 1, 20000));
  }
  std::vector<std::vector<double>> times(functions.size());
  for (int round = 0; round < rounds; ++round)
    for (size_t i = 0; i < functions.size(); ++i) {
      const double start = seconds_now();
      for (int r = 0; r < repeats[i]; ++r) functions[i]();
      times[i].push_back((seconds_now() - start) / repeats[i]);
    }
  std::vector<double> out;
  for (auto& t : times) {
    std::nth_element(t.begin(), t.begin() + long(t.size() / 2), t.end());
    out.push_back(t[t.size() / 2]);
  }
  return out;
}

static int run(int argc, char** argv) {
  const std::map<std::string, std::vector<Row> (*)()> groups = {
      {"linear", linear_rows},  {"attention", attention_rows}, {"ssd", ssd_rows},
      {"train", training_rows}, {"decode", decode_rows},       {"threads", thread_rows}};
  std::vector<std::string> names;
  for (const auto& [name, rows] : groups) names.push_back(name);
  const BenchOptions options = parse_options({argv + 1, argv + argc}, names);
  if (options.help) {
    std::printf("%s", usage(names).c_str());
    return 0;
  }
  if (options.device) return run_device(*options.device);
  const std::vector<std::string>& chosen = options.groups.empty() ? names : options.groups;
  std::printf("%-34s %-26s %12s %12s  %-22s %6s %6s\n", "what", "shape", "measured", "reference",
              "reference is", "ratio", "bar");
  for (const std::string& name : chosen)
    for (const Row& r : groups.at(name)()) {
      char bar[16] = "";
      if (r.bar > 0) std::snprintf(bar, sizeof bar, "%6.2f", r.bar);
      std::printf("%-34s %-26s %12.4g %12.4g  %-22s %6.2f %6s %s%s\n", r.name.c_str(),
                  r.shape.c_str(), r.measured, r.reference, r.reference_name.c_str(), r.ratio, bar,
                  r.unit.c_str(), r.bar > 0 && r.ratio < r.bar ? "  BELOW" : "");
      std::fflush(stdout);
    }
  return 0;
}

}  // namespace strata::bench

int main(int argc, char** argv) {
  try {
    return strata::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "strata_bench: %s\n", error.what());
    return 2;
  }
}
