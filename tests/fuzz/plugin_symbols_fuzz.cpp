// The reader of a plugin's exported symbols, on any bytes.
#include <cstddef>
#include <cstdint>

#include "core/contract/error.h"
#include "plugins/host/elf_symbols.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const strata::ElfFile file({reinterpret_cast<const char*>(data), size}, "fuzz.so");
    for (const strata::ElfSymbol& s : file.symbols()) {
      try {
        file.at(s.address, s.size);
      } catch (const strata::Error&) {
      }
    }
  } catch (const strata::Error&) {
  }
  return 0;
}
