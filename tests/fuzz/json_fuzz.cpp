// libFuzzer entry of the JSON reader: any bytes give a value that survives a round trip, or an
// Error.
#include <cstdint>
#include <cstdlib>

#include "core/io/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::string once = strata::parse_json(text, "fuzz").dump(1);
    if (strata::parse_json(once, "fuzz").dump(1) != once) std::abort();
  } catch (const strata::Error&) {
  }
  return 0;
}
