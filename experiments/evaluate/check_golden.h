// `strata check-golden DIR...`: compares this build with stored reference results. The format of a
// folder is tests/golden/README.md: a model with its inputs, logits, hidden states, caches,
// gradients and training losses, or a folder of operators.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "core/model/layer_factory.h"

namespace strata {

// refused: the folder is not as it must be, so that the check could not be made.
enum class GoldenStatus { ok, failed, skipped, refused };

// One check: the largest error over everything it compares, and where that was.
struct GoldenRow {
  std::string name;  // "logits f64"
  double error = 0;  // infinite if a value is not a number
  double tolerance = 0;
  GoldenStatus status = GoldenStatus::ok;
  std::string note;  // the worst tensor, or why it was skipped or could not run
};

struct GoldenReport {
  std::string folder;
  std::vector<GoldenRow> rows;
  int count(GoldenStatus status) const;
};

struct GoldenOptions {
  bool json = false;    // one JSON object instead of lines
  bool strict = false;  // skipped checks count as failures
  Device device{};      // where the models run; operators run on the CPU alone
};

// All checks of one folder. What the build does not have gives a skipped row ("needs plugin
// mamba1"); what cannot be loaded gives a refused one. Throws Error if this is no golden folder.
GoldenReport check_golden(const std::string& folder, LayerFactory& factory, Device device = {});

// Checks every folder, and the golden folders inside of those that are none themselves; prints, and
// returns the exit code: 0, 1 if a check failed, 2 if a folder was refused, which counts as failed.
// Throws Error if there is nothing to check at all.
int run_check_golden(const std::vector<std::string>& folders, LayerFactory& factory,
                     const GoldenOptions& options, std::ostream& out);

}  // namespace strata
