// Steps that the device has recorded, by everything that they depend on besides the bytes in its
// memory: shapes, places of the cache, options.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/tensor/device.h"

namespace strata {

class STRATA_API StepGraphs {
 public:
  using Key = std::vector<int64_t>;
  // Runs `work` and returns its result: as it is when a key is new (libraries set themselves up),
  // recorded and started when it comes again, and from then on replayed.
  Tensor run(DeviceDriver& driver, const Key& key, const std::function<Tensor()>& work);

 private:
  struct Step {
    std::unique_ptr<DeviceGraph> graph;
    Tensor result;
    int64_t used = 0;           // the run that used it last
    DeviceDriver::Launch last;  // of the kernels that it holds
  };
  static constexpr size_t kMost = 16;  // recorded steps take memory of the device
  std::map<Key, Step> steps_;
  int64_t runs_ = 0;
};

}  // namespace strata
