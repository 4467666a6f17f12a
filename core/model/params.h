// All parameters of a model: names, storage, gradients, initial values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/contract/layer.h"
#include "core/tensor/memory.h"

namespace strata {

// One tensor of the model under its checkpoint name.
struct NamedParam {
  std::string name;    // "blocks.3.mixer.in_proj"
  std::string symbol;  // "M", or "" for the host's own tensors
  ParamSlot* slot = nullptr;
  bool trainable() const { return !slot->is_buffer; }
  // Whether weight decay applies: by the slot's word, else to tensors of rank >= 2.
  bool decays() const;
};

class STRATA_API ParamStore {
 public:
  // Declares a parameter of the host (embeddings, norms, projections of a call).
  Param declare(std::string name, const Shape& shape, ParamOptions options = {});
  // Takes the parameters of a layer under `prefix` ("blocks.3.mixer."). The layer must outlive
  // this.
  void adopt(const std::string& prefix, const std::string& symbol, Layer& layer);

  // Bytes that allocate() will take, values and gradients.
  size_t value_bytes(DType dtype) const;
  size_t grad_bytes(DType dtype) const;
  // Bytes of float32 masters for the trainable parameters that are kept in two bytes.
  size_t master_bytes(DType dtype) const;
  // Binds storage to every slot; zero-filled. Planning contexts bind shapes without memory.
  void allocate(DType dtype, bool with_grads, bool planning, Device device = {});
  // Draws every value; a pure function of (seed, name).
  void initialize(uint64_t seed);
  void zero_grads();
  // All gradients as one row of numbers, with zeros between the tensors; absent without gradients.
  Tensor flat_grads() const;

  const std::vector<NamedParam>& all() const { return params_; }
  // Throws Error naming the nearest known name.
  const NamedParam& at(const std::string& name) const;
  const NamedParam* find(const std::string& name) const;
  int64_t count(bool trainable_only = false) const;  // numbers, not tensors

 private:
  void add(NamedParam p);
  std::deque<ParamSlot> own_;
  std::vector<NamedParam> params_;
  std::map<std::string, size_t> index_;
  Block values_, grads_;
};

}  // namespace strata
