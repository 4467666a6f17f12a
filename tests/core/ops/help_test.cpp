#include "core/ops/help.h"

#include <doctest/doctest.h>

using namespace strata;

TEST_CASE("every operation open to authors has a page with signature, state, gradient, example") {
  for (const char* name :
       {"linear",   "matmul",         "add",           "scale",   "activation",  "gated",
        "rms_norm", "gated_rms_norm", "layer_norm",    "softmax", "split",       "concat",
        "reshape",  "rope",           "causal_conv1d", "attend",  "decay_scan",  "decay_scan_outer",
        "gather",   "scatter_add",    "embedding",     "cast",    "lm_head_loss"}) {
    INFO(name);
    const OpHelp op = op_page(name);
    CHECK(op.page.find("(Context&") != std::string::npos);
    CHECK(op.page.find(op.name) != std::string::npos);
    CHECK(op.page.find("Gradient: ") != std::string::npos);
    CHECK(op.page.find("State: ") != std::string::npos);
    CHECK(op.page.find("#include \"core/ops/") != std::string::npos);
    CHECK(op.summary.size() < 80);
  }
  CHECK(op_pages().size() >= 24);
  CHECK_THROWS_WITH_AS(op_page("linaer"), doctest::Contains("did you mean 'linear'?"), Error);
}
