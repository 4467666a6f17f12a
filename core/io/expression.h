// Small expressions over a JSON object, for files that say how one config maps to another:
//
//   head_dim ?? hidden_size // num_attention_heads      the first that is there and not null
//   2 * mamba_num_heads * mamba_head_dim
//   layer in attn_layer_indices ? 'attention' : 'mamba'
//   rope_parameters.rope_theta, time_step_limit[0]      null where the left side is null
//
// From weakest to strongest: c ? a : b, or, and, == != < <= > >= in, ??, + -, * / // %, not and
// unary -, a.b a[i] f(x). `/` gives a real, `//` rounds down. Literals: 12, 0.5, 'text', true,
// false, null, inf, [a, b]. Functions: len(x), ceil(x), repeat(x, n). A name that the object does
// not have is null; arithmetic with null is an error that says which key is missing.
#pragma once

#include <string>
#include <string_view>

#include "core/io/json.h"

namespace strata {

// The names that an expression may use: `variables` first, then the members of `object`.
struct Scope {
  const Json& object;
  const Json& variables;      // an object; may be null
  const std::string& origin;  // of `object`, for messages: "config.json"
};

// Evaluates; throws Error naming `where` (the place of the expression) and the origin of the
// values.
STRATA_API Json evaluate(std::string_view expression, const Scope& scope, const std::string& where);

// The expression with every name replaced by its value: "2 * 8 * 12 + 8".
STRATA_API std::string substitute(std::string_view expression, const Scope& scope,
                                  const std::string& where);

}  // namespace strata
