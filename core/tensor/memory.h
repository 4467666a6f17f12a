// The two growing arenas of a device: activations (kept until the backward of their block) and
// scratch (workspaces and gradients in flight). Both are stacks; a planning Memory only counts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/contract/tensor.h"

namespace strata {

// What a tensor of `bytes` takes of a row of tensors, so that each starts at a multiple of 64.
constexpr size_t padded_bytes(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Memory that is held for the life of its owner (parameters, gradients, optimizer state, pools):
// zero-filled, on one device. Throws Error (resource) when there is none.
class STRATA_API Block {
 public:
  Block() = default;
  Block(size_t bytes, const std::string& what, Device device = {});
  ~Block();
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  Device device_;
};

// A stack of bytes with a fixed capacity. Marks are given back in reverse order.
class STRATA_API Arena {
 public:
  // `capacity` bytes are reserved, not touched; kPlanning reserves nothing and never runs out.
  Arena(std::string name, size_t capacity, Device device);
  Arena(Arena&&) noexcept;
  Arena& operator=(Arena&&) = delete;

  static constexpr size_t kPlanning = ~size_t{0};

  // 64-byte aligned. Throws Error (resource) naming the arena and `place` when the plan is
  // exceeded.
  void* take(size_t bytes, std::string_view place);
  size_t mark() const { return used_; }
  void release(size_t mark) { used_ = mark; }
  size_t peak() const { return peak_; }
  size_t capacity() const { return capacity_; }
  void reset_peak() { peak_ = used_; }
  bool planning() const { return capacity_ == kPlanning; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  size_t capacity_, used_ = 0, peak_ = 0;
  Block memory_;
};

class STRATA_API Memory {
 public:
  // Planning memory: counts, has no bytes.
  explicit Memory(Device device);
  Memory(Device device, size_t activation_bytes, size_t scratch_bytes);

  Device device() const { return device_; }
  bool planning() const { return activations.planning(); }

  Arena activations;
  Arena scratch;
  int open_scopes = 0;  // ScratchScopes; gradients must not be taken inside one

 private:
  Device device_;
};

}  // namespace strata
