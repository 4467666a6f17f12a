#include "experiments/cli/study_devices.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "core/io/file.h"
#include "core/io/json.h"
#include "experiments/ablate/child.h"
#include "experiments/cli/plugins.h"

namespace strata {
namespace {

constexpr double kDoctorSeconds = 120;  // a driver that does not answer by then is broken

// What `strata doctor --json` prints in a process of its own.
std::string ask_doctor(const Session& session) {
  const std::string file = (std::filesystem::temp_directory_path() /
                            ("strata-devices-" + std::to_string(::getpid()) + ".json"))
                               .string();
  std::vector<std::string> words{session.executable, "doctor", "--json"};
  for (const std::string& word : plugin_arguments(session)) words.push_back(word);
  std::filesystem::remove(file);
  Child child(words, file, kDoctorSeconds);
  std::optional<ChildEnd> end;
  while (!(end = child.poll())) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::string text = read_file(file);
  std::filesystem::remove(file);
  if (end->timed_out || end->signalled || end->code != 0)
    throw Error("the devices cannot be listed: strata doctor " + describe(*end) +
                    "; run it by itself, and check nvidia-smi",
                ErrorKind::device);
  return text;
}

}  // namespace

std::vector<StudyDevice> parse_doctor(const std::string& text, std::string& why) {
  const std::string where = "strata doctor";
  std::vector<StudyDevice> devices;
  // A library may have written a line of its own before.
  const size_t begin = std::min(text.find("[\n"), text.find("[]"));
  const Json rows = parse_json(begin == std::string::npos ? text : text.substr(begin), where);
  for (const Json& row : rows.as_array(where)) {
    const std::string what = row.at("what", where).as_string(where);
    const std::string state = row.at("state", where).as_string(where);
    if (!what.starts_with("cuda")) continue;
    if (row.at("missing", where).as_bool(where)) {
      if (why.empty()) why = state;
      continue;
    }
    StudyDevice device{.device = parse_device(what), .description = state};
    if (const Json* free = row.find("free_bytes")) device.free_bytes = free->as_int(where);
    devices.push_back(std::move(device));
  }
  return devices;
}

std::vector<StudyDevice> study_devices(const StudyPlan& plan, int64_t cpu_slots,
                                       const Session& session) {
  const auto on_cpu = [](const StudyRun& run) { return run.devices.kind == DeviceKind::cpu; };
  if (std::all_of(plan.runs.begin(), plan.runs.end(), on_cpu)) return {};
  std::string why;
  std::vector<StudyDevice> out;
  for (StudyDevice& device : parse_doctor(ask_doctor(session), why)) {
    const bool used = std::any_of(plan.runs.begin(), plan.runs.end(), [&](const StudyRun& run) {
      return run.devices.allows(device.device);
    });
    if (plan.base.ablate.per_device) device.slots = plan.base.ablate.per_device;
    if (used) out.push_back(std::move(device));
  }
  if (std::any_of(plan.runs.begin(), plan.runs.end(), on_cpu))
    out.push_back({.device = {}, .slots = cpu_slots, .description = "CPU"});

  const auto there = [&](const StudyRun& run, int index) {
    return std::any_of(out.begin(), out.end(), [&](const StudyDevice& d) {
      return d.device == Device{run.devices.kind, index};
    });
  };
  for (const StudyRun& run : plan.runs) {
    if (on_cpu(run)) continue;
    const std::string reason =
        (why.empty() ? "there is no such device" : why) + "; strata doctor lists what is here";
    for (int index : run.devices.indices)
      if (!there(run, index))
        throw Error("device " + to_string(Device{run.devices.kind, index}) + ": " + reason,
                    ErrorKind::device);
    const bool any = std::any_of(
        out.begin(), out.end(), [&](const StudyDevice& d) { return run.devices.allows(d.device); });
    if (!any)
      throw Error("device " + std::string(name_of(run.devices.kind)) + ": " + reason,
                  ErrorKind::device);
  }
  return out;
}

}  // namespace strata
