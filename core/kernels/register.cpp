// The kernel registry: one object in libstrata.so, keyed by (op, device, dtype).
#include "core/kernels/register.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <tuple>

namespace strata {
namespace {

struct Registry {
  std::shared_mutex mutex;
  std::map<std::tuple<std::string, DeviceKind, DType>, KernelEntry> best;
  std::map<std::tuple<std::string, DeviceKind, DType, int>, std::string> files;
  std::string clash, reported;
};

// Never destroyed: plugins stay loaded until the process ends.
Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}

bool cpu_runs(int isa) {
  switch (isa) {
    case 0:
      return true;
    case 1:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case 2:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    default:
      return true;  // built for this machine
  }
}

}  // namespace

bool register_kernel(const KernelEntry& entry) {
  Registry& r = registry();
  std::unique_lock lock(r.mutex);
  const auto [it, fresh] =
      r.files.insert({{entry.op, entry.device, entry.dtype, entry.isa}, entry.file});
  if (!fresh) {  // runs inside dlopen, where nothing may be thrown: the loader asks afterwards
    if (r.clash.empty())
      r.clash = std::string("operation '") + entry.op + "' has two " + name_of(entry.device) +
                " kernels for " + name_of(entry.dtype) + ": " + it->second + " and " + entry.file;
    return false;
  }
  if (entry.device == DeviceKind::cpu && !cpu_runs(entry.isa)) return false;
  auto& best = r.best[{entry.op, entry.device, entry.dtype}];
  if (!best.run || entry.isa > best.isa) best = entry;
  return true;
}

const char* take_registration_clash() {
  Registry& r = registry();
  std::unique_lock lock(r.mutex);
  r.reported = std::move(r.clash);
  r.clash.clear();
  return r.reported.c_str();
}

KernelFn find_kernel(const char* op, DeviceKind device, DType dtype, const char* type,
                     size_t size) {
  Registry& r = registry();
  std::shared_lock lock(r.mutex);
  const auto it = r.best.find({op, device, dtype});
  if (it == r.best.end())
    throw MissingKernel(std::string("operation '") + op + "' has no " + name_of(dtype) +
                        " kernel on " + name_of(device) + "; its file " + op + "_" +
                        name_of(device) + " was not built or not loaded");
  if (it->second.args_size != size || std::strcmp(it->second.args_type, type) != 0)
    throw Error(std::string("operation '") + op + "': kernel in " + it->second.file +
                " was compiled for other arguments than its caller; rebuild the plugin");
  return it->second.run;
}

void kernel_error(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(text);
}

void device_error(ErrorKind kind, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error(text, kind);
}

}  // namespace strata
