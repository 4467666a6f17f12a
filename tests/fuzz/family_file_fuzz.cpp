// Any bytes as a family file, with the expressions in it: a model read from a fixed config, or an
// Error.
#include "core/io/families.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const strata::test::FuzzFolder folder;
  static const strata::Json config = strata::parse_json(
      R"({"model_type": "fuzz", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 96,
          "hybrid_override_pattern": "M*-E", "layers_block_type": ["mamba", "attention"],
          "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
          "mamba_num_heads": 8, "mamba_head_dim": 12, "n_groups": 2, "ssm_state_size": 16,
          "conv_kernel": 4, "chunk_size": 8, "use_bias": false, "layer_norm_epsilon": 1e-5,
          "rms_norm_eps": 1e-5, "rope_parameters": {"rope_theta": 10000.0},
          "time_step_limit": [0.0, 1.0], "n_routed_experts": 4, "num_experts_per_tok": 2})",
      "config.json");
  folder.write("fuzz.toml", data, size);
  try {
    strata::read_foreign_config(config, "config.json", folder.path());
  } catch (const strata::Error&) {
  }
  return 0;
}
