// Counter-based random numbers: every draw is a pure function of (seed, stream, index), so that a
// resumed run, another thread count or another order of calls gives the same values.
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "core/contract/error.h"

namespace strata {

// Four random 32-bit words for one counter and key.
STRATA_API std::array<uint32_t, 4> philox(uint64_t counter_lo, uint64_t counter_hi, uint64_t key);

// A 64-bit hash of a name (FNV-1a), used to give every parameter and task a stream of its own.
STRATA_API uint64_t stream_of(std::string_view name);

// A sequence of draws from one (seed, stream); `index` names the position and may be set freely.
class STRATA_API Random {
 public:
  Random(uint64_t seed, uint64_t stream, uint64_t index = 0)
      : seed_(seed), stream_(stream), index_(index) {}

  uint32_t next_u32();
  uint64_t next_u64();
  double uniform();            // in [0, 1), 53 bits
  double normal();             // mean 0, standard deviation 1 (Box-Muller)
  uint64_t below(uint64_t n);  // in [0, n), unbiased (Lemire 2019); n > 0
  uint64_t index() const { return index_; }

 private:
  uint64_t seed_, stream_, index_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;
};

}  // namespace strata
