#include "core/kernels/library_cuda.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>

namespace strata {

namespace fs = std::filesystem;

static void add_wheels(std::vector<std::string>& folders, const fs::path& site_packages) {
  std::error_code none;
  for (const auto& part : fs::directory_iterator(site_packages / "nvidia", none))
    folders.push_back((part.path() / "lib").string());
}

static std::vector<std::string> usual_folders() {
  std::vector<std::string> folders;
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&find_cuda_library), &self) && self.dli_fname)
    folders.push_back(fs::path(self.dli_fname).parent_path().string());
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"})
    if (const char* root = std::getenv(variable)) folders.push_back(std::string(root) + "/lib64");
  for (const char* folder : {"/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib",
                             "/usr/lib/x86_64-linux-gnu", "/usr/lib64"})
    folders.push_back(folder);
  std::vector<fs::path> environments;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const char* root = std::getenv(variable)) environments.push_back(root);
  for (const char* root : {"/usr", "/usr/local"}) environments.push_back(root);
  std::error_code none;
  for (const fs::path& root : environments)
    for (const auto& python : fs::directory_iterator(root / "lib", none))
      if (python.path().filename().string().starts_with("python3"))
        for (const char* packages : {"site-packages", "dist-packages"})
          add_wheels(folders, python.path() / packages);
  return folders;
}

FoundLibrary find_cuda_library(const std::string& name) {
  FoundLibrary found;
  std::vector<std::string> places{name};
  for (const std::string& folder : usual_folders()) places.push_back(folder + "/" + name);
  for (const std::string& place : places) {
    found.handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (found.handle) {
      found.path = place;
      return found;
    }
  }
  found.why = name + " is in none of the loader's folders";
  for (size_t i = 1; i < places.size(); ++i)
    found.why += ", " + fs::path(places[i]).parent_path().string();
  return found;
}

void* open_cuda_library(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, void*> opened;
  std::scoped_lock lock(mutex);
  void*& handle = opened[name];
  if (!handle) {
    const FoundLibrary found = find_cuda_library(name);
    if (!found.handle)
      throw Error("CUDA: " + found.why +
                      "; install the CUDA toolkit or NVIDIA's Python wheels, or set CUDA_HOME",
                  ErrorKind::device);
    handle = found.handle;
  }
  return handle;
}

void* cuda_symbol(void* library, const char* name, const std::string& library_name) {
  void* symbol = dlsym(library, name);
  if (!symbol)
    throw Error("CUDA: " + library_name + " has no function " + name + "; it is of another version",
                ErrorKind::device);
  return symbol;
}

}  // namespace strata
