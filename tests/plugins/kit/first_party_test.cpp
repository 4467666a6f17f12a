// Every plugin of this tree through the conformance kit, in the variants that change what it
// computes.
#include <doctest/doctest.h>

#include "plugins/host/registry.h"
#include "plugins/kit/kit.h"

using namespace strata;

namespace {

struct Case {
  const char* layer;
  int64_t d_model;
  const char* options;  // "d_state=8,chunk_size=4"
};

constexpr const char* kSmall = "head_dim=4,n_heads=8,d_state=6,chunk_size=8,";

const Case kCases[] = {
    {"mlp", 0, ""},
    {"mlp", 12, "d_ff=20,activation=\"silu\",gated=true,bias=true"},
    {"mlp", 12, "d_ff=20,activation=\"gelu\""},
    {"mlp", 12, "d_ff=20,activation=\"gelu_tanh\",gated=true"},
    {"mlp", 12, "d_ff=20,activation=\"relu\",bias=true"},
    {"short_conv", 0, ""},
    {"short_conv", 12, "d_conv=5,bias=true"},
    {"mamba2", 16, ""},
    {"mamba2", 16, "n_groups=2"},
    {"mamba2", 16, "n_groups=8,norm_groups=1,gated_norm=\"norm_first\""},
    {"mamba2", 16, "n_groups=2,neg_eig=true,conv_bias=false,bias=true,chunk_size=16"},
    {"mamba2", 16, "d_conv=2,gated_norm=\"none\",dt_limit_min=0.01,dt_limit_max=0.05"},
    {"attention", 0, ""},
    {"attention", 16, "n_heads=4,n_kv_heads=2,head_dim=6,rope=true"},
    {"attention", 16, "n_heads=4,n_kv_heads=1,head_dim=8,rope=true,rope_fraction=0.5,bias=true"},
    {"attention", 16, "n_heads=2,head_dim=8,window=5,rope=true"},
    {"attention", 16, "n_heads=2,head_dim=8,qk_norm=true,softcap=5.0,scale=0.5"},
};

Options options_of(const Case& c) {
  const bool small = std::string(c.layer) == "mamba2";
  std::string text = (small ? kSmall : "") + std::string(c.options);
  if (text.empty()) return {};
  if (text.back() == ',') text.pop_back();
  return parse_aliases("x{" + text + "}", "table").at(0).preset;
}

}  // namespace

TEST_CASE("every plugin of the tree keeps the contract") {
  Registry registry({}, std::string(STRATA_BINARY_DIR) + "/plugins");
  for (const Case& c : kCases) {
    CAPTURE(c.layer);
    CAPTURE(c.options);
    KitOptions options;
    options.d_model = c.d_model;
    options.set = options_of(c);
    for (const CheckRow& row : check_layer(registry, c.layer, options))
      CHECK_MESSAGE(row.verdict != CheckVerdict::fail, format_row(row));
  }
}
