// What a training step reports besides gradients: its loss, the auxiliary losses of layers, and
// their counts for after_step. Sums on the device over microbatches; the host looks once a step.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "core/contract/layer.h"
#include "core/tensor/memory.h"

namespace strata {

class STRATA_API Notes {
 public:
  // Weighted auxiliary losses; sum of the losses of labelled positions; the same, each times the
  // inverse count of its microbatch; labelled positions. (1,) f64 each.
  enum Sum { aux, loss, mean, labelled, kSums };
  Tensor sum(Sum which) const { return view(which, 1); }

  // The sums of one count of one call site, (n,) f64. The first call, while planning, declares it.
  Tensor count(const std::string& place, const std::string& name, int64_t n, bool planning);

  void allocate(Device device);
  size_t bytes() const { return size_t(size_) * sizeof(double); }

  // Everything since the last take, which is forgotten here. Waits for the device.
  struct Taken {
    double aux = 0, loss = 0, mean = 0;
    int64_t labelled = 0;
    std::map<std::string, StepCounts> counts;  // by place
  };
  Taken take();

 private:
  Tensor view(int64_t at, int64_t n) const;
  struct Range {
    int64_t at, n;
  };
  std::map<std::pair<std::string, std::string>, Range> counts_;
  int64_t size_ = kSums;
  Block memory_;
};

}  // namespace strata
