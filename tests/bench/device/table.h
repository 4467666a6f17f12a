// What a run of the device rows says: a table as it goes, and JSON. A peers' file, or the JSON of
// an earlier run, gives the times to compare with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "tests/bench/device/case.h"

namespace strata::bench {

struct PeerTime {
  double seconds = 0;
  std::string name;  // who: "mamba_ssm, graph"
  std::string card;  // on what
};
using Peers = std::map<std::string, PeerTime>;  // by row

// Adds the rows of a file {"card": ..., "rows": [{"name": ..., "ms": ..., "peer": ...}]}; a row
// without "ms" says nothing. Throws Error.
void add_peers(Peers& peers, const Json& file, const std::string& where);

struct Result {
  std::string name;
  Sample sample;
  std::string error;  // instead of a sample
  std::optional<PeerTime> peer;
};

std::string table_head(const Ceilings& ceilings, const std::string& dtype);
// "ssd_forward/8x8192   4.01   0.912   23%   1112 GB/s   6.81   1.70  mamba_ssm, graph"
std::string table_line(const Result& result, const Ceilings& ceilings);

Json to_json(const std::vector<Result>& results, const Ceilings& ceilings,
             const std::string& dtype);

}  // namespace strata::bench
