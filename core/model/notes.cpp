#include "core/model/notes.h"

#include <stdexcept>
#include <vector>

#include "core/tensor/device.h"

namespace strata {

Tensor Notes::view(int64_t at, int64_t n) const {
  double* base = static_cast<double*>(memory_.data());
  return view_of(base ? base + at : nullptr, {n}, DType::f64, memory_.device());
}

Tensor Notes::count(const std::string& place, const std::string& name, int64_t n, bool planning) {
  auto found = counts_.find({place, name});
  if (found == counts_.end() && planning) {
    found = counts_.emplace(std::pair{place, name}, Range{size_, n}).first;
    size_ += n;
  }
  if (found == counts_.end() || found->second.n != n)
    throw std::logic_error(place + ": the count '" + name + "' was not planned with " +
                           std::to_string(n) + " numbers");
  return planning ? view_of(nullptr, {n}, DType::f64) : view(found->second.at, n);
}

void Notes::allocate(Device device) { memory_ = Block(bytes(), "losses and counts", device); }

Notes::Taken Notes::take() {
  std::vector<double> numbers(memory_.bytes() / sizeof(double));
  DeviceDriver& driver = driver_of(memory_.device());
  driver.download(numbers.data(), memory_.data(), memory_.bytes());
  driver.clear(memory_.data(), memory_.bytes());
  Taken taken{numbers[aux], numbers[loss], numbers[mean], int64_t(numbers[labelled]), {}};
  for (const auto& [key, range] : counts_) {
    const auto begin = numbers.begin() + range.at;
    taken.counts[key.first].counts[key.second].assign(begin, begin + range.n);
  }
  return taken;
}

}  // namespace strata
