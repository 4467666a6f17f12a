// AtomicFolder. A folder that exists cannot be renamed over, so an old one is exchanged with the
// new in one step (renameat2) where the file system can, else moved aside; settle_folder() mends a
// crash between the two renames of that second way.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>

#include "core/io/file.h"
#include "core/io/posix.h"

namespace strata {

namespace fs = std::filesystem;

namespace {

// The process id in a name "<stem><pid>", if it has that form.
std::optional<pid_t> pid_in(const std::string& name, const std::string& stem) {
  if (!name.starts_with(stem)) return std::nullopt;
  pid_t pid = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + stem.size(), end, pid);
  if (parsed.ec != std::errc() || parsed.ptr != end || pid <= 0) return std::nullopt;
  return pid;
}

bool is_running(pid_t pid) { return ::kill(pid, 0) == 0 || errno != ESRCH; }

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void rename_or_fail(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_path(to, "cannot be written", errno);
}

// Swaps two names in one step; false if the file system cannot.
bool exchange(const std::string& a, const std::string& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
  fail_path(b, "cannot be replaced", errno);
}

}  // namespace

void settle_folder(const std::string& given) {
  const std::string path = without_slash(given);
  const std::string name = fs::path(path).filename().string();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent_of(path), error)) {
    const std::string other = entry.path().filename().string();
    const auto old = pid_in(other, name + ".old-");
    const auto temporary = pid_in(other, name + ".tmp-");
    if (old && !is_running(*old) && !fs::exists(path)) {
      rename_or_fail(entry.path().string(), path);
    } else if ((old && !is_running(*old)) || (temporary && !is_running(*temporary))) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
}

AtomicFolder::AtomicFolder(const std::string& path)
    : path_(without_slash(path)), temporary_(path_ + ".tmp-" + std::to_string(::getpid())) {
  make_folders(parent_of(path_));
  settle_folder(path_);
  std::error_code error;
  if (fs::exists(path_, error) && !fs::is_directory(path_, error)) {
    throw Error(path_ + ": expected a folder or nothing, got a file");
  }
  fs::remove_all(temporary_, error);
  if (!fs::create_directory(temporary_, error) || error) {
    fail_path(path_, "cannot be made a folder", error ? error.value() : EEXIST);
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code error;
  if (!done_) fs::remove_all(temporary_, error);
}

void AtomicFolder::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) {
    if (entry.is_regular_file() || entry.is_directory()) sync_path(entry.path().string());
  }
  sync_path(temporary_);
  std::error_code error;
  if (!fs::exists(path_, error)) {
    rename_or_fail(temporary_, path_);
  } else if (exchange(temporary_, path_)) {
    sync_path(parent_of(path_));
    fs::remove_all(temporary_, error);
  } else {
    const std::string old = path_ + ".old-" + std::to_string(::getpid());
    rename_or_fail(path_, old);
    rename_or_fail(temporary_, path_);
    sync_path(parent_of(path_));
    fs::remove_all(old, error);
  }
  done_ = true;
  sync_path(parent_of(path_));
}

}  // namespace strata
