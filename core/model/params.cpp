#include "core/model/params.h"

#include <cmath>

#include "core/tensor/convert.h"
#include "core/tensor/device.h"

namespace strata {

static DType stored_dtype(const ParamSlot& slot, DType dtype) {
  if (dtype == DType::f64) return DType::f64;
  return slot.options.keep == Keep::accum || slot.is_buffer ? DType::f32 : dtype;
}

static DType grad_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

bool NamedParam::decays() const {
  if (slot->options.decay != Decay::automatic) return slot->options.decay == Decay::yes;
  return slot->shape.rank >= 2;
}

Param ParamStore::declare(std::string name, const Shape& shape, ParamOptions options) {
  own_.push_back({name, shape, std::move(options), false, {}, {}});
  add({std::move(name), "", &own_.back()});
  return Param(&own_.back());
}

void ParamStore::adopt(const std::string& prefix, const std::string& symbol, Layer& layer) {
  for (ParamSlot& slot : layer.params()) add({prefix + slot.name, symbol, &slot});
}

void ParamStore::add(NamedParam p) {
  if (!index_.emplace(p.name, params_.size()).second)
    throw Error("parameter '" + p.name + "' is declared twice");
  params_.push_back(std::move(p));
}

size_t ParamStore::value_bytes(DType dtype) const {
  size_t bytes = 0;
  for (const NamedParam& p : params_)
    bytes += padded_bytes(size_t(p.slot->shape.numel()) * size_of(stored_dtype(*p.slot, dtype)));
  return bytes;
}

size_t ParamStore::grad_bytes(DType dtype) const {
  size_t bytes = 0;
  for (const NamedParam& p : params_)
    if (p.trainable())
      bytes += padded_bytes(size_t(p.slot->shape.numel()) * size_of(grad_dtype(dtype)));
  return bytes;
}

size_t ParamStore::master_bytes(DType dtype) const {
  size_t bytes = 0;
  for (const NamedParam& p : params_)
    if (p.trainable() && size_of(stored_dtype(*p.slot, dtype)) == 2)
      bytes += padded_bytes(size_t(p.slot->shape.numel()) * sizeof(float));
  return bytes;
}

void ParamStore::allocate(DType dtype, bool with_grads, bool planning, Device device) {
  if (!planning) {
    values_ = Block(value_bytes(dtype), "parameters", device);
    if (with_grads) grads_ = Block(grad_bytes(dtype), "gradients", device);
  }
  char* value = static_cast<char*>(values_.data());
  char* grad = static_cast<char*>(grads_.data());
  for (NamedParam& p : params_) {
    ParamSlot& slot = *p.slot;
    slot.value = view_of(planning ? nullptr : value, slot.shape, stored_dtype(slot, dtype), device);
    slot.value.param = &slot;
    slot.grad = {};
    if (!planning) value += padded_bytes(slot.value.bytes());
    if (!with_grads || slot.is_buffer) continue;
    slot.grad = view_of(planning ? nullptr : grad, slot.shape, grad_dtype(dtype), device);
    if (!planning) grad += padded_bytes(slot.grad.bytes());
  }
}

template <class T>
static void draw(const ParamSlot& slot, Random& random, T* x) {
  const Init& init = slot.options.init;
  const double bound = 1 / std::sqrt(double(slot.shape.cols()));
  for (int64_t i = 0, n = slot.shape.numel(); i < n; ++i) {
    double value = init.value;
    switch (init.kind) {
      case Init::Kind::linear:
        value = bound * (2 * random.uniform() - 1);
        break;
      case Init::Kind::zeros:
        value = 0;
        break;
      case Init::Kind::ones:
        value = 1;
        break;
      case Init::Kind::constant:
        break;
      case Init::Kind::normal:
        value = init.value * random.normal();
        break;
      case Init::Kind::each:
        value = init.draw(random);
        break;
    }
    x[i] = T(value * slot.options.init_scale);
  }
}

void ParamStore::initialize(uint64_t seed) {
  std::vector<double> numbers;  // room for one tensor
  std::vector<float> drawn;
  for (const NamedParam& p : params_) {
    Random random(seed, stream_of(p.name));
    const Tensor& value = p.slot->value;
    numbers.resize((value.bytes() + sizeof(double) - 1) / sizeof(double));
    if (value.dtype == DType::f64)
      draw(*p.slot, random, numbers.data());
    else if (value.dtype == DType::f32)
      draw(*p.slot, random, reinterpret_cast<float*>(numbers.data()));
    else {
      drawn.resize(size_t(value.numel()));
      draw(*p.slot, random, drawn.data());
      convert_numbers(drawn.data(), DType::f32, numbers.data(), value.dtype, drawn.size());
    }
    assign_from_host(value, numbers.data());
  }
}

void ParamStore::zero_grads() {
  if (grads_.data()) driver_of(grads_.device()).clear(grads_.data(), grads_.bytes());
}

Tensor ParamStore::flat_grads() const {
  if (!grads_.data()) return {};
  DType dtype = DType::f32;
  for (const NamedParam& p : params_)
    if (p.slot->grad) dtype = p.slot->grad.dtype;
  return view_of(grads_.data(), {int64_t(grads_.bytes() / size_of(dtype))}, dtype, grads_.device());
}

const NamedParam* ParamStore::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &params_[it->second];
}

const NamedParam& ParamStore::at(const std::string& name) const {
  if (const NamedParam* p = find(name)) return *p;
  std::vector<std::string> known;
  for (const NamedParam& p : params_) known.push_back(p.name);
  const std::string near = nearest(name, known);
  throw Error("the model has no parameter '" + name + "'" +
              (near.empty() ? "" : "; the nearest is '" + near + "'"));
}

int64_t ParamStore::count(bool trainable_only) const {
  int64_t n = 0;
  for (const NamedParam& p : params_)
    if (!trainable_only || p.trainable()) n += p.slot->shape.numel();
  return n;
}

}  // namespace strata
