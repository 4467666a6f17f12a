#include "core/model/plan.h"

#include <cstdio>
#include <fstream>
#include "core/tensor/device.h"

namespace strata {

std::vector<std::pair<std::string, size_t>> MemoryPlan::rows() const {
  std::vector<std::pair<std::string, size_t>> rows{{"parameters", parameters}};
  if (gradients) rows.push_back({"gradients", gradients});
  if (optimizer) rows.push_back({"optimizer", optimizer});
  rows.push_back({"activations", activations});
  rows.push_back({"scratch", scratch});
  if (state) rows.push_back({"state and pages", state});
  if (runtime) rows.push_back({"runtime", runtime});
  return rows;
}

std::string format_bytes(size_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = double(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit ? "%.2f %s" : "%.0f %s", value, kUnits[unit]);
  return text;
}

std::string MemoryPlan::table() const {
  std::string text;
  char line[96];
  for (const auto& [name, bytes] : rows()) {
    std::snprintf(line, sizeof line, "  %-16s %12s  %15zu\n", name.c_str(),
                  format_bytes(bytes).c_str(), bytes);
    text += line;
  }
  std::snprintf(line, sizeof line, "  %-16s %12s  %15zu", "total", format_bytes(total()).c_str(),
                total());
  return text + line;
}

void MemoryPlan::require(size_t limit, Device device) const {
  const bool given = limit > 0;
  const bool on_cpu = device.kind == DeviceKind::cpu;
  if (!given) limit = on_cpu ? available_memory() : driver_of(device).free_bytes();
  if (limit == 0 || total() <= limit) return;
  throw Error("the run needs " + format_bytes(total()) + " of memory, " +
                  (given    ? "the memory limit is "
                   : on_cpu ? "this machine has "
                            : to_string(device) + " has ") +
                  format_bytes(limit) + (given ? "" : " free") +
                  "; lower train.batch_size, raise train.accumulate, or set train.recompute\n" +
                  table(),
              ErrorKind::resource);
}

// A line "Key:   123 kB" of a file of /proc, in bytes.
static size_t proc_value(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return size_t(std::stoull(line.substr(key.size()))) * 1024;
  return 0;
}

size_t available_memory() { return proc_value("/proc/meminfo", "MemAvailable:"); }
size_t resident_memory() { return proc_value("/proc/self/status", "VmRSS:"); }
size_t peak_resident_memory() { return proc_value("/proc/self/status", "VmHWM:"); }
void reset_peak_resident_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace strata
