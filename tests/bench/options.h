// The command line of strata_bench.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/bench/device/run.h"

namespace strata::bench {

struct BenchOptions {
  bool help = false;
  std::vector<std::string> groups;      // of the CPU's rows; empty: all
  std::optional<DeviceOptions> device;  // with --device: its rows instead
};

// Throws Error naming the argument that is wrong.
BenchOptions parse_options(const std::vector<std::string>& arguments,
                           const std::vector<std::string>& groups);
std::string usage(const std::vector<std::string>& groups);

}  // namespace strata::bench
