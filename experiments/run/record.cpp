#include "experiments/run/record.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/kernels/cuda_path.h"

#include "experiments/run/run.h"

namespace strata {

namespace fs = std::filesystem;

static std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string git_commit(const std::string& path) {
  std::error_code error;
  for (fs::path folder = fs::absolute(path, error); folder.has_relative_path();
       folder = folder.parent_path()) {
    const fs::path git = folder / ".git";
    if (!fs::is_directory(git, error)) continue;
    const std::string head = first_line(git / "HEAD");
    if (!head.starts_with("ref: ")) return head;
    const std::string ref = head.substr(5), loose = first_line(git / ref);
    if (!loose.empty()) return loose;
    std::ifstream packed(git / "packed-refs");
    for (std::string line; std::getline(packed, line);) {
      if (line.ends_with(" " + ref)) return line.substr(0, line.find(' '));
    }
    return "";
  }
  return "";
}

std::string cpu_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

Json device_record(Device device, bool deterministic) {
  const DeviceFacts facts = driver_of(device).facts();
  Json json = Json::object();
  json.set("device", to_string(device)).set("deterministic", deterministic);
  if (device.kind == DeviceKind::cpu) return json;
  return json.set("name", facts.name)
      .set("kernels", cuda_path() == CudaPath::best ? "best" : "portable")
      .set("driver", facts.driver)
      .set("driver_cuda", facts.driver_cuda)
      .set("cuda", facts.cuda);
}

Json make_record(const Config& config, const std::vector<PluginRecord>& plugins,
                 const std::string& command_line) {
  std::error_code error;
  const std::string program = fs::read_symlink("/proc/self/exe", error).string();
  Json list = Json::array();
  for (const PluginRecord& p : plugins) {
    list.push(Json::object().set("name", p.name).set("path", p.path).set("sha256", p.hash));
  }
  Json record = Json::object();
  record.set("strata", STRATA_VERSION)
      .set("commit", git_commit(program))
      .set("compiler", __VERSION__)
      .set("cpu", cpu_name())
      .set("device", device_record(parse_device(config.model.device), config.train.deterministic))
      .set("command", command_line)
      .set("seed", config.train.seed)
      .set("threads", config.train.threads)
      .set("config_hash", config_hash(config))
      .set("plugins", std::move(list));
  return record;
}

void check_plugins(const std::string& folder, const std::vector<PluginRecord>& plugins) {
  const std::string where = folder + "/record.json";
  if (!fs::exists(where)) return;
  const Json record = read_json(where);
  const Json* list = record.find("plugins");
  if (!list) return;
  for (const Json& then : list->as_array(where)) {
    const std::string name = then.at("name", where).as_string(where);
    const std::string hash = then.at("sha256", where).as_string(where);
    for (const PluginRecord& now : plugins) {
      if (now.name == name && now.hash != hash) {
        throw Error("the plugin " + name + " has changed since this run began: " + now.path +
                    " has SHA-256 " + now.hash.substr(0, 12) + ", the run was made with " +
                    hash.substr(0, 12) + "; start a new run with another --out");
      }
    }
  }
}

}  // namespace strata
