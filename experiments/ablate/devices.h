// The devices that the runs of a study are dealt out to: how many share one, and what is left of
// its memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor/device.h"

namespace strata {

// What a process holds on a GPU besides its plan: CUDA's context, the code of the kernels that it
// uses, and the workspace of cuBLAS. An assumption with room to spare, not a measurement.
constexpr int64_t kContextBytes = int64_t{768} << 20;

// Runs that share a GPU where the study says "auto". Small models leave a GPU idle while their host
// prepares the next step; processes take turns on a GPU, so that beyond some number they only wait
// for each other. That number is assumed, not measured: `per_device` sets another.
constexpr int64_t kAutoPerDevice = 8;

struct StudyDevice {
  Device device;
  int64_t slots = kAutoPerDevice;  // runs that may share it
  int64_t free_bytes = 0;          // before the first run; 0: memory sets no limit
  std::string description;         // "NVIDIA H200, 132 multiprocessors, ..."
};

class DevicePool {
 public:
  // `limit`: runs at once over all devices; 0: what they hold.
  DevicePool(std::vector<StudyDevice> devices, int64_t limit);

  // The device that a run of `bytes` may start on now: of those with room the one with the fewest
  // runs. A run that no device could hold is given an empty one, to say so itself.
  std::optional<size_t> find(const DeviceChoice& choice, int64_t bytes) const;
  void start(size_t index, int64_t bytes);
  void end(size_t index, int64_t bytes);
  // No run starts there any more.
  void lose(size_t index) { places_[index].lost = true; }

  Device device(size_t index) const { return places_[index].device.device; }
  int64_t free_bytes(size_t index) const { return places_[index].device.free_bytes; }
  int64_t running(size_t index) const { return places_[index].running; }
  // True while one of the devices can be used.
  bool serves(const DeviceChoice& choice) const;
  // "device cuda:0 was lost", of those that the choice allows.
  std::string losses(const DeviceChoice& choice) const;
  // How many runs of `bytes` go on side by side; at least 1.
  int64_t at_once(int64_t bytes) const;

 private:
  struct Place {
    StudyDevice device;
    int64_t running = 0, used_bytes = 0;
    bool lost = false;
  };
  std::vector<Place> places_;
  int64_t limit_;
};

}  // namespace strata
