#include "core/io/posix.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/contract/error.h"

namespace strata {

void fail_path(const std::string& path, const std::string& problem, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM;
  const char* remedy = error == ENOSPC || error == EDQUOT
                           ? "; free some space or choose another folder"
                       : error == EACCES || error == EROFS || error == EPERM
                           ? "; choose a place with the needed rights"
                       : error == EFBIG  ? "; raise the limit on file sizes (ulimit -f)"
                       : error == ENOENT ? "; make the folder first"
                                         : "";
  throw Error(path + ": " + problem + ": " + std::strerror(error) + remedy,
              is_full ? ErrorKind::resource : ErrorKind::input);
}

void write_all(int fd, const char* data, size_t bytes, const std::string& path) {
  constexpr size_t kMost = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  while (bytes > 0) {
    const ssize_t done = ::write(fd, data, std::min(bytes, kMost));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_path(path, "cannot be written", errno);
    data += done;
    bytes -= static_cast<size_t>(done);
  }
}

void sync_path(const std::string& path) {
  const std::string name = path.empty() ? "." : path;
  const Descriptor fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) fail_path(name, "cannot be opened to sync it", errno);
  // Some file systems cannot sync a folder and say EINVAL; nothing can be done about those.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) fail_path(name, "cannot be synced", errno);
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace strata
