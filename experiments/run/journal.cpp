#include "experiments/run/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <sstream>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/posix.h"

namespace strata {

Journal::Journal(std::string path)
    : path_(std::move(path)),
      fd_(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail_path(path_, "cannot be written", errno);
}

Journal::~Journal() { ::close(fd_); }

void Journal::line(std::string_view text) {
  const std::string whole = std::string(text) + "\n";
  write_all(fd_, whole.data(), whole.size(), path_);
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
