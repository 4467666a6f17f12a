#include "experiments/run/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"

namespace strata {

[[noreturn]] static void fail(const std::string& path, const char* what) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(path + " " + what + ": " + std::strerror(error) +
                  (full ? "; free some space and go on with --resume auto" : ""),
              full ? ErrorKind::resource : ErrorKind::input);
}

Journal::Journal(std::string path)
    : path_(std::move(path)),
      fd_(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail(path_, "cannot be opened");
}

Journal::~Journal() { ::close(fd_); }

void Journal::line(std::string_view text) {
  const std::string whole = std::string(text) + "\n";
  for (size_t done = 0; done < whole.size();) {
    const ssize_t n = ::write(fd_, whole.data() + done, whole.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, "cannot be written");
    done += size_t(n);
  }
}

void cut_metrics(const std::string& path, long step) {
  if (!std::filesystem::exists(path)) return;
  std::istringstream in(read_file(path));
  std::string kept;
  for (std::string line; std::getline(in, line) && !in.eof();) {  // a line without its end is lost
    try {
      const Json json = parse_json(line, path);
      if (json.at("step", path).as_int(path) <= step) kept += line + "\n";
    } catch (const Error&) {
      continue;
    }
  }
  write_file(path, kept);
}

}  // namespace strata
