#include "plugins/host/loader.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

// Boost.DLL on the standard library's file system needs no library of Boost.
#define BOOST_DLL_USE_STD_FS
#include <boost/dll/shared_library.hpp>
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

const PluginInfo& load_plugin(const PluginFile& file) {
  Loaded& l = loaded();
  std::scoped_lock lock(l.mutex);
  auto it = l.libraries.find(file.path);
  if (it == l.libraries.end()) {
    if (!file.sealed) try_in_child(file.path, file.entry);
    std::error_code failed;
    take_registration_clash();
    boost::dll::shared_library library(file.path, kMode, failed);
    if (failed)
      throw Error(file.path + ": the system's loader refuses it: " + failed.message() +
                  "; rebuild it against this strata");
    it = l.libraries.emplace(file.path, std::move(library)).first;
    const std::string clash = take_registration_clash();
    if (!clash.empty()) throw Error(file.path + ": " + clash + "; give the operation another name");
  }
  if (!it->second.has(file.entry))
    throw Error(file.path + ": has changed since it was found; run again");
  const PluginInfo& info = it->second.get<const PluginInfo>(file.entry);
  if (info.struct_size < sizeof(PluginInfo) || file.name != info.name || file.symbol != info.symbol)
    throw Error(file.path + ": has changed since it was found; run again");
  return info;
}

}  // namespace strata
