// What a run needs, by arena, computed before it starts.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "core/contract/tensor.h"

namespace strata {

struct STRATA_API MemoryPlan {
  size_t parameters = 0, gradients = 0, optimizer = 0, activations = 0, scratch = 0, state = 0;
  size_t runtime = 0;  // code that is read in, generated kernels, stacks: no arena of ours

  size_t total() const {
    return parameters + gradients + optimizer + activations + scratch + state + runtime;
  }
  // (name, bytes) in the order of the table.
  std::vector<std::pair<std::string, size_t>> rows() const;
  // The table of bytes by arena, one line each, with the total.
  std::string table() const;
  // Throws Error (resource) with the table when total() exceeds `limit` bytes (0: what the device
  // has free).
  void require(size_t limit, Device device = {}) const;
};

STRATA_API std::string format_bytes(size_t bytes);  // "1.23 GiB"
STRATA_API size_t available_memory();               // bytes, MemAvailable of the system
STRATA_API size_t resident_memory();                // bytes resident now
STRATA_API size_t peak_resident_memory();           // highest since the start or the last reset
STRATA_API void reset_peak_resident_memory();       // where the system allows it

}  // namespace strata
