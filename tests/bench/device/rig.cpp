#include "tests/bench/device/rig.h"

#include <numeric>

#include "core/tensor/device.h"

namespace strata::bench {

Rig::Rig(Clock& clock, Memory& memory, DType dtype) : cx(memory, dtype), clock_(clock) {}

Tensor Rig::random(const Shape& shape, DType dtype, double low, double high) {
  const Tensor t = cx.alloc(shape, dtype);
  if (!cx.planning()) clock_.randomize(t, low, high, seed_++);
  return t;
}

Tensor Rig::random(const Shape& shape, double low, double high) {
  return random(shape, cx.dtype(), low, high);
}

Tensor Rig::numbers(const std::vector<int32_t>& values) {
  const Tensor t = cx.alloc({int64_t(values.size())}, DType::i32);
  if (!cx.planning()) assign_from_host(t, values.data());
  return t;
}

Param Rig::param(const Shape& shape, double low, double high, Keep keep, bool trained) {
  params_.push_back({"weight", shape, {.keep = keep}, false, {}, {}});
  ParamSlot& slot = params_.back();
  slot.value = random(shape, keep == Keep::accum ? cx.accum_dtype() : cx.dtype(), low, high);
  slot.value.param = &slot;
  if (trained) slot.grad = random(shape, cx.accum_dtype(), 0, 0);
  return Param(&slot);
}

Runs Rig::forward(std::function<void()> op) {
  Memory& memory = cx.memory();
  const size_t activations = memory.activations.mark(), scratch = memory.scratch.mark();
  return {[=, &memory, op = std::move(op)] {
    op();
    memory.activations.release(activations);
    memory.scratch.release(scratch);
  }};
}

Runs Rig::backward(std::function<Tensor()> op) {
  Memory& memory = cx.memory();
  const size_t activations = memory.activations.mark(), scratch = memory.scratch.mark();
  Runs runs;
  runs.prepare = [=, this, &memory, op = std::move(op)] {
    cx.clear_tape();
    memory.activations.release(activations);
    memory.scratch.release(scratch);
    cx.set_recording(true);
    const Tensor y = op();
    cx.set_recording(false);
    cx.set_grad(y, random(y.shape, y.dtype, -1, 1));
  };
  runs.body = [this] { cx.replay(0); };
  return runs;
}

// ------------------------------------------------------------------------------------------ pass
static Block block_of(const std::vector<int32_t>& values, Device device) {
  Block block(values.size() * sizeof(int32_t), "indices of a row", device);
  driver_of(device).upload(block.data(), values.data(), block.bytes());
  return block;
}

RigPass::RigPass(Clock& clock, Device device, int64_t batch, int64_t held)
    : clock_(&clock),
      device_(device),
      batch_(batch),
      pages_per_row_((held + 1 + kPageTokens - 1) / kPageTokens) {
  std::vector<int32_t> slots(size_t(batch), 0), table(size_t(batch * pages_per_row_), 0);
  std::iota(slots.begin(), slots.end(), 0);
  std::iota(table.begin(), table.end(), 0);
  slots_ = block_of(slots, device);
  table_ = block_of(table, device);
  lengths_ = block_of(std::vector<int32_t>(size_t(batch), int32_t(held)), device);
}

void* RigPass::store(std::string_view name, const Shape& shape, DType dtype) {
  auto it = kept_.find(name);
  if (it == kept_.end()) {
    Block block(size_t(shape.numel()) * size_of(dtype), "state of a row", device_);
    clock_->randomize(view_of(block.data(), shape, dtype, device_), -1, 1, kept_.size() + 100);
    it = kept_.emplace(std::string(name), std::move(block)).first;
  }
  return it->second.data();
}

StateRef RigPass::state(std::string_view name, const Shape& per_sequence, DType dtype) {
  if (!batch_) return {};
  const int64_t numbers = per_sequence.numel();
  return {store(name, {batch_, numbers}, dtype), numbers * int64_t(size_of(dtype)),
          static_cast<const int32_t*>(slots_.data())};
}

PagesRef RigPass::pages(std::string_view name, const Shape& per_token, DType dtype, Growth) {
  if (!batch_) return {};
  const int64_t token = per_token.numel() * int64_t(size_of(dtype));
  const Shape all{batch_ * pages_per_row_ * kPageTokens, per_token.numel()};
  return {store(name, all, dtype),
          token * kPageTokens,
          token,
          static_cast<const int32_t*>(table_.data()),
          pages_per_row_,
          static_cast<const int32_t*>(lengths_.data())};
}

}  // namespace strata::bench
