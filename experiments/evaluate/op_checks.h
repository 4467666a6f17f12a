// The golden operators that this build has, one function each: fills the case with comparisons.
#pragma once

#include <string>

#include "experiments/evaluate/op_case.h"

namespace strata::golden {

void check_activations(OpCase& c);
void check_norms(OpCase& c);
void check_attention(OpCase& c);
void check_causal_conv1d(OpCase& c);
void check_rope(OpCase& c);
void check_cross_entropy(OpCase& c);
void check_adamw(OpCase& c);
void check_ssd_scan(OpCase& c);
void check_moe(OpCase& c);

}  // namespace strata::golden
