// The conformance kit behind `strata check-layer`: runs one layer through what its contract
// promises and reports the measured error of every check.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/model/layer_factory.h"

namespace strata {

enum class CheckVerdict { ok, fail, skipped };

struct CheckRow {
  std::string check;  // "gradient in_proj", "decode", ...
  double error = 0, tolerance = 0;
  CheckVerdict verdict = CheckVerdict::ok;
  std::string note;
};

struct KitOptions {
  Options set;          // of the layer, above its preset
  int64_t d_model = 0;  // 0: the smallest of 8, 16, ... 1024 that the layer accepts
  uint64_t seed = 1;
  Device device;        // where the layer runs; a second run on the CPU is compared with it
  bool isolate = true;  // each group of checks in a child process, so that a crash is a failed row;
                        // on the CPU alone, since a device does not survive a fork
};

// Checks the layer of a symbol or name. `on_row` sees every row as soon as it is known. Throws
// Error for an unknown layer and for options that the layer refuses at every d_model.
std::vector<CheckRow> check_layer(LayerFactory& factory, const std::string& symbol,
                                  const KitOptions& options = {},
                                  const std::function<void(const CheckRow&)>& on_row = {});

// "ok    decode    1.2e-15  (at most 1e-09)  12 tokens": one line without its end.
std::string format_row(const CheckRow& row);

// No row failed and some row was checked.
bool all_passed(const std::vector<CheckRow>& rows);

}  // namespace strata
