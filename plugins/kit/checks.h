// The groups of checks. Each takes a choice of layer and gives rows; what it throws is a failed
// row.
#pragma once

#include "plugins/kit/bed.h"
#include "plugins/kit/kit.h"

namespace strata::kit {

using Rows = std::vector<CheckRow>;

// A row that is ok when error <= tolerance.
CheckRow measured(std::string check, double error, double tolerance, std::string note = {});
CheckRow failed(std::string check, std::string note);
CheckRow skipped(std::string check, std::string note);

// The row without which no other check can run.
constexpr const char* kKernels = "kernels";

Rows check_planning(const LayerChoice& c);     // kernels, planning
Rows check_values(const LayerChoice& c);       // values
Rows check_shapes(const LayerChoice& c);       // shapes
Rows check_bad_shapes(const LayerChoice& c);   // bad shapes
Rows check_bad_options(const LayerChoice& c);  // bad options, option names
Rows check_gradients(const LayerChoice& c);    // gradient x, gradient <param>...
Rows check_uses(const LayerChoice& c);       // gradients add up, frozen, called twice, own backward
Rows check_state(const LayerChoice& c);      // decode, chunked prefill, fork, ragged batch, ...
Rows check_documents(const LayerChoice& c);  // documents forward, documents backward
Rows check_numbers(const LayerChoice& c);    // float32, float32 backward, determinism, threads
Rows check_devices(const LayerChoice& c);    // as on the CPU
Rows check_half(const LayerChoice& c);       // bf16 and f16, on devices that have them
Rows check_quantize(const LayerChoice& c);   // int8

}  // namespace strata::kit
