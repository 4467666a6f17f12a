// Files: whole reads, read-only maps, and writes that are complete or do not happen.
//
// An output is written under a temporary name in the same folder, synced, and renamed; a reader
// (or a crash) sees the old content or the new, never a part. A full disk is an Error of kind
// resource; everything else that is wrong with a path is kind input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/contract/error.h"

namespace strata {

// The whole file. Throws Error if it is missing, no regular file, unreadable or over max_bytes.
STRATA_API std::string read_file(const std::string& path, size_t max_bytes = size_t{1} << 30);

// A file mapped read-only; the bytes stay valid as long as the object lives. Movable.
class STRATA_API MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws Error as read_file does
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Says that these bytes are not needed soon: they leave this process's memory and are read from
  // the file when they are looked at again.
  void forget(const void* begin, size_t bytes) const;

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// One file that appears under its name only on commit(). Without it the destructor removes the
// temporary file.
class STRATA_API AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);  // creates path.tmp-PID
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // sync, rename, sync the folder

 private:
  void flush();
  std::string path_, temporary_;
  std::vector<char> buffer_;
  int fd_ = -1;
};

// Writes a whole file by AtomicFile.
STRATA_API void write_file(const std::string& path, std::string_view text);

// A folder that appears under its name only on commit(): fill temporary(), then commit() syncs
// every file below it and swaps it in. An older folder of that name stays until then and is
// removed after. What a killed process left (path.tmp-PID, path.old-PID) is settled on creation.
class STRATA_API AtomicFolder {
 public:
  explicit AtomicFolder(const std::string& path);
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder();
  const std::string& temporary() const { return temporary_; }
  void commit();

 private:
  std::string path_, temporary_;
  bool done_ = false;
};

// Repairs what a killed AtomicFolder left beside `path`: puts the old folder back if the new one
// was not yet in place, and removes leftovers of processes that are gone.
STRATA_API void settle_folder(const std::string& path);

// Creates a folder and its parents; throws Error if that cannot be done.
STRATA_API void make_folders(const std::string& path);

}  // namespace strata
