#include "plugins/host/loader.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

// Boost.DLL on the standard library's file system needs no library of Boost.
#define BOOST_DLL_USE_STD_FS
#include <dlfcn.h>
#include <boost/dll/shared_library.hpp>
#include <filesystem>
#include <map>
#include <mutex>

#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr auto kMode = boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local;
constexpr unsigned kTrialSeconds = 20;

struct Loaded {
  std::mutex mutex;
  std::map<std::string, boost::dll::shared_library> libraries;  // by path
};

// Never destroyed: layers and kernels of a plugin may outlive everything else.
Loaded& loaded() {
  static Loaded* l = new Loaded;
  return *l;
}

constexpr int64_t kTrialWidth = 64;

// What a file without a checksum is tried with: a layer is made, which may refuse the width.
void make_one(const boost::dll::shared_library& library, const std::string& entry) {
  try {
    const LayerConfig config(kTrialWidth, 1, {}, "trial");
    if (library.has(entry)) library.get<const PluginInfo>(entry).create(config);
  } catch (...) {
  }
}

// A file without a checksum may be damaged where only the system's loader or the layer's own code
// stumbles, and that crashes. So a child process tries it first.
void try_in_child(const std::string& path, const std::string& entry) {
  const pid_t child = fork();
  if (child < 0) return;
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) ::signal(signal, SIG_DFL);
    close(STDOUT_FILENO);
    close(STDERR_FILENO);
    alarm(kTrialSeconds);
    std::error_code failed;
    const boost::dll::shared_library library(path, kMode, failed);
    if (!failed) make_one(library, entry);
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  // The system's loader ends the process with a message when it finds itself inconsistent.
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw Error(path + ": cut or damaged: loading it " +
                (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "does not end" : "crashes") +
                "; build or copy it again");
}

}  // namespace

// The library of `path`, loaded now or before. Kernels that it registers twice are an error. A
// plugin without a checksum is tried in a child first, by its entry.
static boost::dll::shared_library& library_of(Loaded& l, const std::string& path,
                                              const std::string& unsealed_entry = "") {
  auto it = l.libraries.find(path);
  if (it != l.libraries.end()) return it->second;
  if (!unsealed_entry.empty()) try_in_child(path, unsealed_entry);
  std::error_code failed;
  take_registration_clash();
  boost::dll::shared_library library(path, kMode, failed);
  if (failed)
    throw Error(path + ": the system's loader refuses it: " + failed.message() +
                "; rebuild it against this strata");
  it = l.libraries.emplace(path, std::move(library)).first;
  const std::string clash = take_registration_clash();
  if (!clash.empty()) throw Error(path + ": " + clash + "; give the operation another name");
  return it->second;
}

const PluginInfo& load_plugin(const PluginFile& file) {
  Loaded& l = loaded();
  std::scoped_lock lock(l.mutex);
  const boost::dll::shared_library& library =
      library_of(l, file.path, file.sealed ? "" : file.entry);
  if (!library.has(file.entry))
    throw Error(file.path + ": has changed since it was found; run again");
  const PluginInfo& info = library.get<const PluginInfo>(file.entry);
  if (info.struct_size < sizeof(PluginInfo) || file.name != info.name || file.symbol != info.symbol)
    throw Error(file.path + ": has changed since it was found; run again");
  return info;
}

void load_cuda_half(const PluginFile& file) {
  if (file.cuda_path.empty()) return;
  Loaded& l = loaded();
  std::scoped_lock lock(l.mutex);
  library_of(l, file.cuda_path);
}

// Beside libstrata.so.
static std::filesystem::path cuda_library() {
  Dl_info self;
  const bool known = dladdr(reinterpret_cast<void*>(&register_kernel), &self) && self.dli_fname;
  const auto folder = known ? std::filesystem::path(self.dli_fname).parent_path() : "";
  return folder / "libstrata_cuda.so";
}

bool serves_cuda(const PluginFile& file) {
  std::error_code none;
  return std::filesystem::exists(cuda_library(), none) &&
         (!file.own_kernels || !file.cuda_path.empty());
}

void load_cuda_library() {
  const std::filesystem::path path = cuda_library();
  std::error_code none;
  if (!std::filesystem::exists(path, none))
    throw Error(path.string() + ": is not there: this build has no CUDA kernels; build with nvcc " +
                    "installed (-DSTRATA_CUDA=ON), or use device = \"cpu\"",
                ErrorKind::device);
  Loaded& l = loaded();
  std::scoped_lock lock(l.mutex);
  library_of(l, path.string());
}

}  // namespace strata
