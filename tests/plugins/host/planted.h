// The plugins that tests/plugins/faulty builds, and scratch copies of them.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace planted {

namespace fs = std::filesystem;

inline std::string path(const std::string& name) {
  return std::string(STRATA_BINARY_DIR) + "/tests/plugins/" + name + ".so";
}

inline std::string bytes_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A folder of its own, removed at the end of the test.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "strata-plugins-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  std::string write(const std::string& name, const std::string& bytes) const {
    const std::string file = (path_ / name).string();
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }
  std::string str() const { return path_.string(); }

 private:
  fs::path path_;
};

}  // namespace planted
