// The text of the strata::Error that a call throws; "" if it throws none.
#pragma once

#include <string>

#include "core/contract/error.h"

namespace strata::test {

template <class F>
std::string error_text(F&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace strata::test
