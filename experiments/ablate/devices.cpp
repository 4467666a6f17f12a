#include "experiments/ablate/devices.h"

#include <algorithm>

namespace strata {

static int64_t held(int64_t bytes) { return bytes + kContextBytes; }

DevicePool::DevicePool(std::vector<StudyDevice> devices, int64_t limit) : limit_(limit) {
  for (StudyDevice& device : devices) places_.push_back({std::move(device)});
}

std::optional<size_t> DevicePool::find(const DeviceChoice& choice, int64_t bytes) const {
  std::optional<size_t> best;
  int64_t all = 0;
  for (size_t i = 0; i < places_.size(); ++i) {
    const Place& p = places_[i];
    all += p.running;
    if (p.lost || !choice.allows(p.device.device) || p.running >= p.device.slots) continue;
    const bool fits = p.device.free_bytes == 0 || p.used_bytes + held(bytes) <= p.device.free_bytes;
    if (p.running > 0 && !fits) continue;
    if (!best || p.running < places_[*best].running) best = i;
  }
  if (limit_ > 0 && all >= limit_) return {};
  return best;
}

void DevicePool::start(size_t index, int64_t bytes) {
  ++places_[index].running;
  places_[index].used_bytes += held(bytes);
}

void DevicePool::end(size_t index, int64_t bytes) {
  --places_[index].running;
  places_[index].used_bytes -= held(bytes);
}

bool DevicePool::serves(const DeviceChoice& choice) const {
  return std::any_of(places_.begin(), places_.end(),
                     [&](const Place& p) { return !p.lost && choice.allows(p.device.device); });
}

std::string DevicePool::losses(const DeviceChoice& choice) const {
  std::string names;
  int count = 0;
  for (const Place& p : places_)
    if (p.lost && choice.allows(p.device.device)) {
      names += (names.empty() ? "" : ", ") + to_string(p.device.device);
      ++count;
    }
  return count == 1 ? "device " + names + " was lost" : "devices " + names + " were lost";
}

int64_t DevicePool::at_once(int64_t bytes) const {
  int64_t sum = 0;
  for (const Place& p : places_) {
    const int64_t fit =
        p.device.free_bytes == 0 ? p.device.slots : p.device.free_bytes / held(bytes);
    sum += std::clamp<int64_t>(fit, 1, p.device.slots);
  }
  if (limit_ > 0) sum = std::min(sum, limit_);
  return std::max<int64_t>(1, sum);
}

}  // namespace strata
