// Errors that a user can mend. The text says where, what was expected, what came, and the remedy.
#pragma once

#include <stdexcept>
#include <string>

#define STRATA_API __attribute__((visibility("default")))

namespace strata {

enum class ErrorKind {
  input,     // the user's config, file, pattern or plugin is wrong: exit code 2
  resource,  // memory or disk is short: exit code 3
  device,    // a device is not there, too old or not to be had: exit code 3
  fault,     // a kernel failed on a device, which this process cannot use any more: exit code 3
  lost,      // a device went away while it was used: exit code 3
};

// Thrown for every user mistake, as early as possible. `what()` is one sentence.
class STRATA_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text, ErrorKind kind = ErrorKind::input);
  ~Error() override;
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace strata
