#include "core/tensor/memory.h"

#include <algorithm>
#include <utility>

#include "core/tensor/device.h"

namespace strata {

constexpr size_t kAlign = 64;

Arena::Arena(std::string name, size_t capacity, Device device)
    : name_(std::move(name)), capacity_(capacity) {
  if (!planning()) memory_ = Block(capacity_, "arena '" + name_ + "'", device);
}

Arena::Arena(Arena&& other) noexcept
    : name_(std::move(other.name_)),
      capacity_(other.capacity_),
      used_(other.used_),
      peak_(other.peak_),
      memory_(std::move(other.memory_)) {}

void* Arena::take(size_t bytes, std::string_view place) {
  const size_t start = used_;
  const size_t end = start + (bytes + kAlign - 1) / kAlign * kAlign;
  if (!planning() && end > capacity_)
    throw Error(std::string(place) + ": arena '" + name_ + "' holds " + std::to_string(capacity_) +
                    " bytes by plan, " + std::to_string(end) +
                    " are needed; the plan was made for other shapes",
                ErrorKind::resource);
  used_ = end;
  peak_ = std::max(peak_, used_);
  return planning() ? nullptr : static_cast<char*>(memory_.data()) + start;
}

Memory::Memory(Device device)
    : activations("activations", Arena::kPlanning, device),
      scratch("scratch", Arena::kPlanning, device),
      device_(device) {}

Memory::Memory(Device device, size_t activation_bytes, size_t scratch_bytes)
    : activations("activations", activation_bytes, device),
      scratch("scratch", scratch_bytes, device),
      device_(device) {}

Block::Block(size_t bytes, const std::string& what, Device device)
    : data_(bytes ? driver_of(device).reserve(bytes, what) : nullptr),
      bytes_(bytes),
      device_(device) {}

Block::~Block() {
  if (data_) driver_of(device_).release(data_, bytes_);
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      device_(other.device_) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  return *this;
}

}  // namespace strata
