// Operations by name, with named tensors: how the golden checks reach an operation that lives in a
// plugin, whose header nobody outside of the plugin may include. A plugin adds, in the operation's
// .cpp,
//
//   static void run_scan(NamedCall& call) { call.out["y"] = scan(call.cx, call.at("x")); }
//   STRATA_NAMED_OP("scan", run_scan)
//
// Names of tensors and layouts are those of tests/golden/ops/NAME.json.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "core/contract/context.h"
#include "core/contract/options.h"

namespace strata {

struct STRATA_API NamedCall {
  Context& cx;
  std::map<std::string, Tensor, std::less<>> in;
  Options options;
  std::map<std::string, Tensor, std::less<>> out;

  // An input; absent (no tensor) if it was not given.
  Tensor at(std::string_view name) const;
  // An option as a number, or the fallback.
  double number(std::string_view name, double fallback) const;
};

using NamedOp = void (*)(NamedCall& call);

// Returns true, for the initialisation of a static. The last registration of a name counts.
STRATA_API bool register_named_op(const char* name, NamedOp op);
// Null if nothing that is loaded has registered the name.
STRATA_API NamedOp find_named_op(std::string_view name);

}  // namespace strata

#define STRATA_NAMED_OP_JOIN_(a, b) a##b
#define STRATA_NAMED_OP_JOIN(a, b) STRATA_NAMED_OP_JOIN_(a, b)
#define STRATA_NAMED_OP(name, function)                                    \
  static const bool STRATA_NAMED_OP_JOIN(named_op_registered_, __LINE__) = \
      strata::register_named_op(name, function);
