// strata doctor: what this machine offers, what was built, and what is missing.
#include <CLI/CLI.hpp>
#include <iostream>
#include <thread>

#include "core/io/json.h"
#include "core/model/plan.h"
#include "core/tensor/device.h"
#include "experiments/cli/plugins.h"
#include "plugins/host/loader.h"

namespace strata {
namespace {

struct Finding {
  std::string what, state;  // "cuda:0", "NVIDIA H200, ..."
  bool missing = false;
  int64_t free_bytes = 0;  // of a device; 0: not known
};

// The CUDA half of the build and the devices that it sees.
void add_cuda(std::vector<Finding>& findings) {
  try {
    load_cuda_library();
  } catch (const Error& error) {
    findings.push_back({"cuda", error.what(), true});
    return;
  }
  const DeviceCount found = count_devices(DeviceKind::cuda);
  if (found.count == 0) findings.push_back({"cuda", found.why, true});
  for (int i = 0; i < found.count; ++i) {
    const Device device{DeviceKind::cuda, i};
    try {
      DeviceDriver& driver = driver_of(device);
      const size_t free = driver.free_bytes();
      const DeviceFacts facts = driver.facts();
      findings.push_back({to_string(device),
                          driver.description() + ", " + format_bytes(free) + " free, driver " +
                              facts.driver + " for CUDA " + facts.driver_cuda + ", CUDA " +
                              facts.cuda,
                          false, int64_t(free)});
      for (const DeviceDriver::Library& library : driver.libraries())
        findings.push_back({"  " + library.name, library.place, !library.found});
    } catch (const Error& error) {
      findings.push_back({to_string(device), error.what(), true});
    }
  }
}

std::vector<Finding> examine(const Session& session) {
  std::vector<Finding> findings{{"cpu", std::to_string(std::thread::hardware_concurrency()) +
                                            " threads, " + format_bytes(available_memory()) +
                                            " of memory free"}};
  add_cuda(findings);
  const auto plugins = open_plugins(session);
  for (const PluginFile& p : plugins->plugins())
    findings.push_back(
        {"plugin " + p.name, p.path + (p.cuda_path.empty() ? "" : " with " + p.cuda_path)});
  for (const auto& [path, why] : plugins->refused()) findings.push_back({"plugin", why, true});
  return findings;
}

}  // namespace

void add_doctor_command(CLI::App& app, Session& session) {
  auto* command =
      app.add_subcommand("doctor", "show devices, libraries and plugins, and what is missing");
  command->footer("\nExamples:\n  strata doctor\n  strata doctor --json");
  command->callback([&session] {
    session.action = [&session] {
      Json rows = Json::array();
      for (const Finding& f : examine(session)) {
        if (session.json) {
          Json row = Json::object();
          row.set("what", f.what).set("state", f.state).set("missing", f.missing);
          if (f.free_bytes) row.set("free_bytes", f.free_bytes);
          rows.push(std::move(row));
        } else {
          std::cout << (f.missing ? "missing  " : "ok       ") << f.what
                    << std::string(f.what.size() < 20 ? 20 - f.what.size() : 1, ' ') << f.state
                    << "\n";
        }
      }
      if (session.json) std::cout << rows.dump(2) << "\n";
      return kDone;
    };
  });
}

}  // namespace strata
