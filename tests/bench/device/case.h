// A row as it is declared: a name that --only matches, and what measures it.
//
//   cases.push_back(op_case("gated_norm_forward/8x8192", gated_norm_forward_work(s, 2),
//                           [=](Rig& rig) { ... return rig.forward([=, &rig] { ... }); }));
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "plugins/host/registry.h"
#include "tests/bench/device/rig.h"

namespace strata::bench {

// What all rows of a run share.
struct Env {
  Clock& clock;
  Registry& registry;
  Device device;
  DType dtype = DType::bf16;
  std::vector<std::string> recompute;  // of the training rows, as train.recompute
  int64_t prefill_chunk = 8192;        // tokens of one call of a prefill
};

struct Sample {
  double seconds = 0;
  Work work;
  double tokens = 0;      // of one run, where tokens are what counts
  size_t plan_bytes = 0;  // of the memory plan, of model rows
};

struct Case {
  std::string name;
  std::function<Sample(Env&)> measure;
};

// A row of one or a few operations. `set_up` is called twice: to plan its memory, and with it.
Case op_case(std::string name, const Work& work, std::function<Runs(Rig&)> set_up);

// Sizes of the rows: as a full table has them, or so small that a CPU runs each in a moment.
enum class Scale { full, tiny };

std::vector<Case> norm_and_conv_cases(Scale scale, int64_t element);
std::vector<Case> attention_cases(Scale scale, int64_t element);
std::vector<Case> matmul_cases(Scale scale, int64_t element);
std::vector<Case> mamba2_cases(Scale scale, int64_t element);
std::vector<Case> model_cases(Scale scale);
// All of them, in the order of the table.
std::vector<Case> all_cases(Scale scale, int64_t element);

std::string batch_by(int64_t batch, int64_t seq_len);  // "8x8192"

}  // namespace strata::bench
