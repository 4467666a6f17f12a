#include "core/model/step_graphs.h"

#include <algorithm>

namespace strata {

Tensor StepGraphs::run(DeviceDriver& driver, const Key& key, const std::function<Tensor()>& work) {
  const auto known = steps_.find(key);
  if (known == steps_.end()) {
    const Tensor result = work();
    if (steps_.size() >= kMost)
      steps_.erase(std::min_element(steps_.begin(), steps_.end(), [](const auto& a, const auto& b) {
        return a.second.used < b.second.used;
      }));
    steps_[key].used = ++runs_;
    return result;
  }
  Step& step = known->second;
  step.used = ++runs_;
  if (!step.graph) {
    step.graph = driver.record([&] { step.result = work(); });
    step.last = driver.last_launch();
  }
  if (!step.graph) return step.result = work();
  driver.note_launch(step.last.op, step.last.place);
  step.graph->launch();
  return step.result;
}

}  // namespace strata
