// The folder in which a fuzz target lays its input out as files. It is the process's own: libFuzzer
// leaves by _exit, so a target uses one folder over and over instead of one for each input.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace strata::test {

class FuzzFolder {
 public:
  FuzzFolder()
      : path_(
            (std::filesystem::temp_directory_path() / ("strata_fuzz_" + std::to_string(::getpid())))
                .string()) {
    std::filesystem::create_directories(path_);
  }
  const std::string& path() const { return path_; }
  // Writes a file of the folder and returns its path.
  std::string write(const std::string& name, const uint8_t* data, size_t size) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), std::streamsize(size));
    return path;
  }

 private:
  std::string path_;
};

}  // namespace strata::test
