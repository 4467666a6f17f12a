#include "core/io/data_folder.h"

#include <dlfcn.h>

#include <filesystem>

namespace strata {

namespace fs = std::filesystem;

std::string data_path(std::string_view name) {
  Dl_info info{};
  std::error_code error;
  fs::path library;
  if (::dladdr(reinterpret_cast<const void*>(&data_path), &info) && info.dli_fname) {
    library = fs::canonical(info.dli_fname, error);
  }
  const fs::path installed = library.parent_path().parent_path() / "share" / "strata" / name;
  if (fs::exists(installed, error)) return installed.string();
  fs::path folder = library.parent_path();
  for (int level = 0; level < 6 && folder.has_relative_path(); ++level) {
    if (fs::exists(folder / name, error)) return (folder / name).string();
    folder = folder.parent_path();
  }
  throw Error(std::string(name) + ": expected it beside the library at " + installed.string() +
              " or in a folder above; the installation is not complete");
}

}  // namespace strata
