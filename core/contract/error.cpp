#include "core/contract/error.h"

namespace strata {

Error::Error(const std::string& text, ErrorKind kind) : std::runtime_error(text), kind_(kind) {}

Error::~Error() = default;

}  // namespace strata
