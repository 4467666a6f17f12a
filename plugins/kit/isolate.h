// Runs checks so that whatever a plugin does becomes a row.
#pragma once

#include <functional>
#include <string>

#include "plugins/kit/checks.h"

namespace strata::kit {

// The rows of `run`, or one failed row `name` with what it threw.
Rows run_caught(const std::string& name, const std::function<Rows()>& run);

// The same in a child process: a crash, an exit or ten minutes without an end become a failed row.
Rows run_in_child(const std::string& name, const std::function<Rows()>& run);

// Says what is being done, for the row of a crash.
void at_work(const std::string& what);

}  // namespace strata::kit
