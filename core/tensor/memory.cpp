#include "core/tensor/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace strata {

constexpr size_t kAlign = 64;

static void* map_pages(size_t bytes, const std::string& what) {
  if (bytes == 0) return nullptr;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error(what + ": the system cannot provide " + std::to_string(bytes >> 20) +
                    " MiB of memory; use a smaller batch_size, seq_len or model",
                ErrorKind::resource);
  // Large pages spare page faults and TLB misses; a refusal changes nothing but speed.
  if (bytes >= (size_t{4} << 20)) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

Arena::Arena(std::string name, size_t capacity) : name_(std::move(name)), capacity_(capacity) {
  if (!planning() && capacity_ > 0)
    base_ = static_cast<char*>(map_pages(capacity_, "arena '" + name_ + "'"));
}

Arena::~Arena() {
  if (base_) munmap(base_, capacity_);
}

Arena::Arena(Arena&& other) noexcept
    : name_(std::move(other.name_)),
      capacity_(other.capacity_),
      used_(other.used_),
      peak_(other.peak_),
      base_(std::exchange(other.base_, nullptr)) {}

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
  return planning() ? nullptr : base_ + start;
}

Memory::Memory(Device device)
    : activations("activations", Arena::kPlanning),
      scratch("scratch", Arena::kPlanning),
      device_(device) {}

Memory::Memory(Device device, size_t activation_bytes, size_t scratch_bytes)
    : activations("activations", activation_bytes),
      scratch("scratch", scratch_bytes),
      device_(device) {}

Block::Block(size_t bytes, const std::string& what)
    : data_(map_pages(bytes, what)), bytes_(bytes) {}

Block::~Block() {
  if (data_) munmap(data_, bytes_);
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace strata
