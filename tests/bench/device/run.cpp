#include "tests/bench/device/run.h"

#include <cstdio>
#include <regex>

#include "core/io/file.h"
#include "core/kernels/cuda_path.h"
#include "tests/bench/device/table.h"

namespace strata::bench {

static std::vector<Case> chosen(const std::string& only, int64_t element) {
  std::vector<Case> cases = all_cases(Scale::full, element);
  if (only.empty()) return cases;
  try {
    const std::regex pattern(only);
    std::erase_if(cases, [&](const Case& c) { return !std::regex_search(c.name, pattern); });
  } catch (const std::regex_error& e) {
    throw Error("--only '" + only + "' is no regular expression: " + e.what());
  }
  if (cases.empty()) throw Error("--only '" + only + "' leaves no row; --list names them");
  return cases;
}

static Result measure(const Case& c, Env& env) {
  Result result{c.name, {}, {}, {}};
  try {
    result.sample = c.measure(env);
  } catch (const Error& e) {
    result.error = e.what();
    if (const size_t end = result.error.find('\n'); end != std::string::npos)
      result.error.resize(end);
  }
  return result;
}

int run_device(const DeviceOptions& options) {
  const std::vector<Case> cases = chosen(options.only, int64_t(size_of(options.dtype)));
  if (options.list) {
    for (const Case& c : cases) std::printf("%s\n", c.name.c_str());
    return 0;
  }
  Peers peers;
  for (const std::string& file : options.peers) add_peers(peers, read_json(file), file);
  if (options.portable) set_cuda_path(CudaPath::portable);
  Registry registry;
  registry.use_device(options.device);
  const std::unique_ptr<Clock> clock = open_clock(options.device);
  Env env{*clock,        registry,          options.device,
          options.dtype, options.recompute, options.prefill_chunk};
  const Ceilings ceilings = clock->ceilings();
  const std::string dtype = name_of(options.dtype);
  std::printf("%s\n", table_head(ceilings, dtype).c_str());
  std::fflush(stdout);
  std::vector<Result> results;
  bool failed = false;
  for (const Case& c : cases) {
    Result result = measure(c, env);
    if (const auto peer = peers.find(c.name); peer != peers.end()) result.peer = peer->second;
    failed |= !result.error.empty();
    std::printf("%s\n", table_line(result, ceilings).c_str());
    std::fflush(stdout);
    results.push_back(std::move(result));
    // A row that brings the process down leaves what was measured before it.
    if (!options.json.empty())
      write_file(options.json, to_json(results, ceilings, dtype).dump(1) + "\n");
  }
  return failed ? 1 : 0;
}

}  // namespace strata::bench
