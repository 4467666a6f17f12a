// How long work on a device takes, and numbers to work on. CUDA's clock is there when the
// benchmarks were built with CUDA.
#pragma once

#include <functional>
#include <memory>

#include "core/contract/tensor.h"
#include "tests/bench/device/work.h"

namespace strata::bench {

// One thing to time. `prepare`, untimed, comes before every direct call of `body`. A body that
// `captures` only starts work on the device's stream, again and again the same: it is replayed from
// a CUDA graph, which spares the host's launches.
struct Runs {
  std::function<void()> body;
  std::function<void()> prepare = [] {};
  bool captures = true;
  int repeats = 1;  // what is wanted happens so often in one body
};

class Clock {
 public:
  virtual ~Clock();
  virtual Ceilings ceilings() = 0;
  // Median seconds of one repeat, after a warm-up.
  virtual double seconds(const Runs& runs) = 0;
  // Uniform numbers in [low, high), rounded to the tensor's dtype; the same for the same seed.
  virtual void randomize(const Tensor& t, double low, double high, uint64_t seed) = 0;
};

// Throws Error when nothing measures such a device.
std::unique_ptr<Clock> open_clock(Device device);
using OpenClock = std::unique_ptr<Clock> (*)(Device);
bool register_clock(DeviceKind kind, OpenClock open);

// The median of `once` (seconds), called until the times add up to a quarter second: 5 to 30 times,
// less often when a call is long.
double median_seconds(const std::function<double()>& once);
double seconds_now();

// What randomize() gives element i: a hash of (seed, i) in [0, 1).
STRATA_INLINE double uniform_at(uint64_t seed, uint64_t i) {
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull ^ seed * 0xd1342543de82ef95ull;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  x ^= x >> 32;
  return double(uint32_t(x >> 8)) * (1.0 / 4294967296.0);
}

}  // namespace strata::bench
