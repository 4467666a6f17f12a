#include "tests/bench/device/case.h"

namespace strata::bench {

std::string batch_by(int64_t batch, int64_t seq_len) {
  return std::to_string(batch) + "x" + std::to_string(seq_len);
}

Case op_case(std::string name, const Work& work, std::function<Runs(Rig&)> set_up) {
  const auto measure = [work, set_up = std::move(set_up)](Env& env) {
    Memory plan(env.device);
    {
      Rig rig(env.clock, plan, env.dtype);
      const Runs runs = set_up(rig);
      runs.prepare();
      runs.body();
    }
    Memory memory(env.device, plan.activations.peak(), plan.scratch.peak());
    Rig rig(env.clock, memory, env.dtype);
    return Sample{env.clock.seconds(set_up(rig)), work};
  };
  return {std::move(name), measure};
}

std::vector<Case> all_cases(Scale scale, int64_t element) {
  std::vector<Case> all;
  for (auto cases :
       {mamba2_cases(scale, element), norm_and_conv_cases(scale, element),
        attention_cases(scale, element), matmul_cases(scale, element), model_cases(scale)})
    for (Case& c : cases) all.push_back(std::move(c));
  return all;
}

}  // namespace strata::bench
