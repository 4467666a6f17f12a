// Small helpers around POSIX calls, shared by the sources of core/io.
#pragma once

#include <cstddef>
#include <string>

#include "core/contract/error.h"

namespace strata {

// Throws Error "<path> <problem>: <errno in words>"; a full disk or quota is of kind resource.
[[noreturn]] STRATA_API void fail_path(const std::string& path, const std::string& problem,
                                       int error);

// Writes everything or throws (fail_path).
STRATA_API void write_all(int fd, const char* data, size_t bytes, const std::string& path);

// fsync of a file or folder by name; "" is the working folder.
void sync_path(const std::string& path);

// Closes its descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace strata
