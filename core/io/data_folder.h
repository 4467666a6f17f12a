// Where the data files of Strata lie (configs, templates): in the source tree or an install tree.
#pragma once

#include <string>
#include <string_view>

#include "core/contract/error.h"

namespace strata {

// The path of a file or folder such as "configs/families": below share/strata beside the library's
// folder, else in the nearest folder above the library that has it. Throws Error if there is none.
STRATA_API std::string data_path(std::string_view name);

}  // namespace strata
