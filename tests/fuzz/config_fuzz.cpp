// Any bytes as a config file: read, or refused with strata::Error; what was read must survive
// being written and read again.
#include <cstdint>
#include <cstdlib>

#include "core/model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  strata::Config config;
  try {
    config = strata::read_config({std::string(data, data + size), "fuzz.toml", {}, {}});
  } catch (const strata::Error&) {
    return 0;
  }
  const std::string text = strata::to_toml(config);
  if (strata::to_toml(strata::read_config({text, "again.toml", {}, {}})) != text) std::abort();
  return 0;
}
