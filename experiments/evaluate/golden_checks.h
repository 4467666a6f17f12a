// The two kinds of golden folders, as rows.
#pragma once

#include <string>
#include <vector>

#include "experiments/evaluate/golden_file.h"

namespace strata::golden {

// A model folder: in float32 against the folder's tolerances, in float64 against 1e-9. The first
// thing that is not as it must be ends the checks with a refused row.
std::vector<GoldenRow> check_model(const std::string& folder, LayerFactory& factory, Device device);

// The operators of a folder, sorted: NAME where NAME.safetensors and NAME.json are there.
std::vector<std::string> op_names(const std::string& folder);

// A folder of operators, in float32 and float64.
std::vector<GoldenRow> check_ops(const std::string& folder, LayerFactory& factory);

}  // namespace strata::golden
