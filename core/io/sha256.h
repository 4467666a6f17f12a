// SHA-256 (FIPS 180-4): names the content of files in run records.
#pragma once

#include <string>
#include <string_view>

#include "core/contract/error.h"

namespace strata {

// 64 lower-case hex digits.
STRATA_API std::string sha256_hex(std::string_view bytes);

}  // namespace strata
