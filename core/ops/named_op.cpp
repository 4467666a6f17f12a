#include "core/ops/named_op.h"

namespace strata {

// Made on first use, so that libraries may register before or after this one is initialised.
static std::map<std::string, NamedOp, std::less<>>& registry() {
  static std::map<std::string, NamedOp, std::less<>> ops;
  return ops;
}

Tensor NamedCall::at(std::string_view name) const {
  const auto found = in.find(name);
  return found == in.end() ? Tensor{} : found->second;
}

double NamedCall::number(std::string_view name, double fallback) const {
  const auto found = options.find(name);
  if (found == options.end()) return fallback;
  if (const auto* real = std::get_if<double>(&found->second)) return *real;
  if (const auto* integer = std::get_if<int64_t>(&found->second)) return double(*integer);
  return fallback;
}

bool register_named_op(const char* name, NamedOp op) {
  registry()[name] = op;
  return true;
}

NamedOp find_named_op(std::string_view name) {
  const auto found = registry().find(name);
  return found == registry().end() ? nullptr : found->second;
}

}  // namespace strata
