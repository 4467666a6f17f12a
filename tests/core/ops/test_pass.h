// A Pass without a host: fixed states in vectors, pages in a private pool.
//
//   TestPass pass(batch);                       // training
//   pass.begin(Mode::prefill);  y = op(cx, x, pass);   // from the states left by earlier passes
//   pass.begin(Mode::decode);   y1 = op(cx, x1, pass);
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/tensor/device.h"
#include "core/tensor/memory.h"
#include "tests/test_device.h"

namespace strata::test {

class TestPass : public Pass {
 public:
  explicit TestPass(int64_t batch, int64_t capacity_tokens = 512)
      : batch_(batch), pages_per_row_((capacity_tokens + kPageTokens - 1) / kPageTokens) {
    // Slots and pages in reverse order, so that whoever ignores the tables is caught.
    for (int64_t b = 0; b < batch; ++b) slots_.push_back(int32_t(batch - 1 - b));
    const int64_t n = batch * pages_per_row_;
    for (int64_t i = 0; i < n; ++i) table_.push_back(int32_t(n - 1 - i));
    lengths_.assign(size_t(batch), 0);
  }

  // Starts a pass of `mode`. `tokens`: what the pass before it appended to the pages.
  TestPass& begin(Mode mode, int64_t tokens_before = 0) {
    bring_back();
    mode_ = mode;
    counts_.clear();
    for (int32_t& n : lengths_) n += int32_t(tokens_before);
    return *this;
  }
  // Forgets every state.
  void reset() {
    mirrors_.clear();
    states_.clear();
    pools_.clear();
    std::fill(lengths_.begin(), lengths_.end(), 0);
  }
  void set_seq_idx(Tensor t) { seq_idx_ = t; }
  void set_positions(Tensor t) { positions_ = t; }
  void put(const std::string& name, Tensor t) { published_[name] = t; }

  Mode mode() const override { return mode_; }
  Tensor positions() const override { return positions_; }
  Tensor seq_idx() const override { return seq_idx_; }

  StateRef state(std::string_view name, const Shape& per_sequence, DType dtype) override {
    specs[std::string(name)] = {std::string(name), per_sequence, dtype, Growth::fixed()};
    if (mode_ == Mode::train) return {};
    const size_t bytes = size_t(per_sequence.numel()) * size_of(dtype);
    auto& store = states_[std::string(name)];
    if (store.empty()) store.assign(bytes * size_t(batch_), 0);
    return {on_device(store.data(), store.size(), true), int64_t(bytes),
            on_device(slots_.data(), slots_.size() * sizeof(int32_t), false)};
  }

  PagesRef pages(std::string_view name, const Shape& per_token, DType dtype,
                 Growth growth) override {
    specs[std::string(name)] = {std::string(name), per_token, dtype, growth};
    if (mode_ == Mode::train) return {};
    const int64_t token = per_token.numel() * int64_t(size_of(dtype));
    auto& store = pools_[std::string(name)];
    if (store.empty()) store.assign(size_t(token * kPageTokens) * table_.size(), 0);
    const size_t ids = sizeof(int32_t);
    return {on_device(store.data(), store.size(), true),
            token * kPageTokens,
            token,
            on_device(table_.data(), table_.size() * ids, false),
            pages_per_row_,
            on_device(lengths_.data(), lengths_.size() * ids, false)};
  }

  std::string unique(std::string_view base) override {
    const int n = counts_[std::string(base)]++;
    return n == 0 ? std::string(base) : std::string(base) + "." + std::to_string(n);
  }
  void publish(std::string_view name, Tensor value) override { put(std::string(name), value); }
  Tensor fetch(std::string_view name) override { return published_.at(std::string(name)); }
  void save(std::string_view name, Tensor value) override { saved_[std::string(name)] = value; }
  Tensor saved(std::string_view name) const override { return saved_.at(std::string(name)); }
  Random random() const override { return Random(1, 2); }

  // The bytes of a state in slot order, for tests that look or fork.
  std::vector<unsigned char>& bytes(const std::string& name) {
    bring_back();
    return states_.at(name);
  }
  std::map<std::string, StateSpec> specs;  // what the operations declared

 private:
  struct Mirror {
    void* host;
    Block memory;
  };
  // What lies on the host where the kernels of the test's device can reach it, until bring_back().
  template <class T>
  T* on_device(T* host, size_t bytes, bool written) {
    if (test_device().kind == DeviceKind::cpu) return host;
    mirrors_.push_back({written ? host : nullptr, Block(bytes, "test state", test_device())});
    driver_of(test_device()).upload(mirrors_.back().memory.data(), host, bytes);
    return static_cast<T*>(mirrors_.back().memory.data());
  }
  void bring_back() {
    for (Mirror& m : mirrors_)
      if (m.host) driver_of(test_device()).download(m.host, m.memory.data(), m.memory.bytes());
    mirrors_.clear();
  }
  std::vector<Mirror> mirrors_;
  int64_t batch_, pages_per_row_;
  Mode mode_ = Mode::train;
  Tensor positions_, seq_idx_;
  std::vector<int32_t> slots_, table_, lengths_;
  std::map<std::string, std::vector<unsigned char>> states_, pools_;
  std::map<std::string, int> counts_;
  std::map<std::string, Tensor> published_, saved_;
};

}  // namespace strata::test
