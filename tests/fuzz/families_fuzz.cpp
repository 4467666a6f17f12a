// libFuzzer entry of the family reader: any config.json gives a model or an Error.
#include <cstdint>

#include "core/io/families.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    strata::read_foreign_config(strata::parse_json(text, "config.json"), "config.json");
  } catch (const strata::Error&) {
  }
  return 0;
}
