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
    {"mamba2", 11,
     "head_dim=3,d_state=5,n_groups=8,d_conv=3,chunk_size=7,dt_init_min=0.01,dt_init_max=0.5"},
    {"mamba2", 13, "n_heads=16,head_dim=5,d_state=7,n_groups=8,chunk_size=33,neg_eig=true"},
    {"mamba2", 12, "n_groups=4,norm_groups=2,gated_norm=\"norm_first\",norm_eps=0.001"},
    {"attention", 0, ""},
    {"attention", 7, "n_heads=3,head_dim=5,n_kv_heads=1"},
    {"attention", 10,
     "n_heads=6,n_kv_heads=2,head_dim=6,window=9,rope=true,rope_theta=500.0,"
     "qk_norm=true,qk_norm_plus_one=true,qkv_bias=true"},
    {"attention", 9, "n_heads=2,head_dim=8,rope=true,rope_factor=8.0,o_bias=true"},
    {"moe", 0, ""},
    {"moe", 7,
     "router=\"softmax\",n_experts=5,top_k=3,normalize=false,d_ff=7,gated=true,"
     "activation=\"silu\",shared_d_ff=5"},
    {"moe", 9,
     "router=\"topk_softmax\",n_experts=6,n_groups=3,top_groups=2,scale=2.5,"
     "shared_d_ff=3,shared_bias=true,latent_size=5,latent_bias=true"},
    {"moe", 11, "n_experts=7,top_k=1,aux_loss=0.0,correction_bias=true,bias_update=0.01,d_ff=5"},
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
