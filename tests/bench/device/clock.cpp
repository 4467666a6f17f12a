#include "tests/bench/device/clock.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

namespace strata::bench {

Clock::~Clock() = default;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_seconds(const std::function<double()>& once) {
  constexpr double kBudget = 0.25, kLong = 0.5;
  std::vector<double> times;
  double total = 0;
  for (;;) {
    times.push_back(once());
    total += times.back();
    const size_t least = total > kLong * double(times.size()) ? 3 : 5;
    if (times.size() >= 30 || (times.size() >= least && total >= kBudget)) break;
  }
  std::nth_element(times.begin(), times.begin() + long(times.size() / 2), times.end());
  return times[times.size() / 2];
}

static OpenClock& opener_of(DeviceKind kind) {
  static OpenClock openers[kDeviceKinds] = {};
  return openers[int(kind)];
}

bool register_clock(DeviceKind kind, OpenClock open) {
  opener_of(kind) = open;
  return true;
}

std::unique_ptr<Clock> open_clock(Device device) {
  const OpenClock open = opener_of(device.kind);
  if (!open)
    throw Error(device.kind == DeviceKind::cpu
                    ? "the CPU's rows have no --device; name their groups instead"
                    : std::string("the benchmarks were built without ") + name_of(device.kind),
                ErrorKind::resource);
  return open(device);
}

}  // namespace strata::bench
