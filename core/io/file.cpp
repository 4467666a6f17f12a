#include "core/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/io/posix.h"

namespace strata {

namespace fs = std::filesystem;

namespace {

struct OpenFile {
  Descriptor fd;
  size_t size;
};

OpenFile open_regular(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ENOENT) throw Error(path + ": there is no such file");
    fail_path(path, "cannot be read", errno);
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) fail_path(path, "cannot be read", errno);
  if (S_ISDIR(info.st_mode)) throw Error(path + ": expected a file, got a folder");
  if (!S_ISREG(info.st_mode)) throw Error(path + ": expected a regular file, got a device or pipe");
  return {std::move(fd), static_cast<size_t>(info.st_size)};
}

}  // namespace

std::string read_file(const std::string& path, size_t max_bytes) {
  const OpenFile file = open_regular(path);
  if (file.size > max_bytes) {
    throw Error(path + ": expected at most " + std::to_string(max_bytes) + " bytes, got " +
                std::to_string(file.size));
  }
  std::string text(file.size, '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::read(file.fd.get(), text.data() + have, text.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_path(path, "cannot be read", errno);
    if (got == 0) break;  // the file became shorter
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const OpenFile file = open_regular(path);
  size_ = file.size;
  if (size_ == 0) return;
  void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (map == MAP_FAILED) fail_path(path, "cannot be mapped into memory", errno);
  data_ = static_cast<std::byte*>(map);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

void MappedFile::forget(const void* begin, size_t bytes) const {
  const size_t page = size_t(::sysconf(_SC_PAGESIZE));
  const auto from = reinterpret_cast<uintptr_t>(begin), to = from + bytes;
  const auto low = reinterpret_cast<uintptr_t>(data_), high = low + size_;
  if (from < low || to > high) return;  // not of this map
  const uintptr_t first = from / page * page;
  ::madvise(reinterpret_cast<void*>(first), to - first, MADV_DONTNEED);
}

namespace {
constexpr size_t kBufferBytes = size_t{1} << 16;
}

AtomicFile::AtomicFile(const std::string& path)
    : path_(path), temporary_(path + ".tmp-" + std::to_string(::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_path(path_, "cannot be written", errno);
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  if (buffer_.size() + bytes <= kBufferBytes) {
    buffer_.insert(buffer_.end(), from, from + bytes);
    return;
  }
  flush();
  write_all(fd_, from, bytes, path_);
}

void AtomicFile::flush() {
  write_all(fd_, buffer_.data(), buffer_.size(), path_);
  buffer_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) fail_path(path_, "cannot be written", errno);
  const int fd = std::exchange(fd_, -1);
  // A network file system may report a full disk only here.
  if (::close(fd) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail_path(path_, "cannot be written", error);
  }
  sync_path(fs::path(path_).parent_path().string());
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error || !fs::is_directory(path)) {
    fail_path(path, "cannot be made a folder", error ? error.value() : ENOTDIR);
  }
}

}  // namespace strata
