#include "core/model/block_pass.h"

namespace strata {

BlockPass::BlockPass(Context& cx, CallState& call, int site, std::string place)
    : cx_(cx), call_(call), site_(site), place_(std::move(place)) {}

const CacheEntry& BlockPass::entry(const StateSpec& spec) const {
  const CacheEntry* e = call_.cache->layout->find(site_, spec.name);
  if (!e)
    throw Error(place_ + ": state '" + spec.name + "' was not declared when the model was planned");
  if (!(e->spec.shape == spec.shape) || e->spec.dtype != spec.dtype)
    throw Error(place_ + ": state '" + spec.name + "' is " + to_string(e->spec.shape) +
                ", forward asks for " + to_string(spec.shape));
  return *e;
}

StateRef BlockPass::state(std::string_view name, const Shape& per_sequence, DType dtype) {
  if (call_.mode == Mode::train) return {};
  const StateSpec spec{std::string(name), per_sequence, dtype, Growth::fixed()};
  static const int32_t kNoSlot = 0;
  if (call_.declare) {
    call_.declare->add(site_, spec);
    return {nullptr, 0, &kNoSlot};
  }
  const CacheBatch& c = *call_.cache;
  return {static_cast<char*>(c.slots_base) + entry(spec).offset, c.layout->slot_bytes,
          c.slots.ptr<int32_t>()};
}

PagesRef BlockPass::pages(std::string_view name, const Shape& per_token, DType dtype,
                          Growth growth) {
  if (call_.mode == Mode::train) return {};
  const StateSpec spec{std::string(name), per_token, dtype, growth};
  static const int32_t kNoPage = 0;
  if (call_.declare) {
    call_.declare->add(site_, spec);
    return {nullptr, 0, 0, &kNoPage, 1, &kNoPage};
  }
  const CacheBatch& c = *call_.cache;
  const CacheEntry& e = entry(spec);
  const CacheBatch::Group& group = c.groups[e.group];
  return {static_cast<char*>(group.pages) + e.offset,
          c.layout->groups[e.group].page_bytes,
          e.token_bytes,
          group.table.ptr<int32_t>(),
          group.table.pitch,
          c.lengths.ptr<int32_t>()};
}

std::string BlockPass::unique(std::string_view base) {
  const int n = uses_[std::string(base)]++;
  return n == 0 ? std::string(base) : std::string(base) + "." + std::to_string(n);
}

void BlockPass::publish(std::string_view name, Tensor value) {
  const auto it = call_.published.find(name);
  if (it != call_.published.end()) {  // computed again for the backward of its block
    cx_.share_grad(value, it->second);
    return;
  }
  if (cx_.recording()) cx_.bind_grad(value, cx_.alloc(value.shape, value.dtype));
  call_.published.emplace(std::string(name), value);
}

Tensor BlockPass::fetch(std::string_view name) {
  if (call_.fetched) call_.fetched->insert(std::string(name));
  const auto it = call_.published.find(name);
  if (it != call_.published.end()) return it->second;
  std::vector<std::string> known;
  for (const auto& [n, tensor] : call_.published) known.push_back(n);
  const std::string near = nearest(std::string(name), known);
  throw Error(place_ + ": no earlier block publishes '" + std::string(name) + "'" +
              (near.empty() ? "" : "; the nearest is '" + near + "'"));
}

void BlockPass::save(std::string_view name, Tensor value) {
  if (!saved_.emplace(std::string(name), value).second)
    throw Error(place_ + ": '" + std::string(name) + "' is saved twice in one forward");
}

Tensor BlockPass::saved(std::string_view name) const {
  const auto it = saved_.find(name);
  if (it == saved_.end())
    throw Error(place_ + ": forward saved nothing named '" + std::string(name) + "'");
  return it->second;
}

Random BlockPass::random() const { return Random(call_.seed, stream_of(place_), call_.step << 32); }

}  // namespace strata
