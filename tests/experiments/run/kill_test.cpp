// A run killed by SIGKILL at random moments, through the executable and loaded plugins, ends with
// the weights and metrics of a run that nobody touched.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include "core/io/file.h"
#include "core/tensor/random.h"

using namespace strata;
namespace fs = std::filesystem;

namespace {

pid_t start(const std::string& folder) {
  const std::string program = std::string(STRATA_BINARY_DIR) + "/bin/strata";
  const pid_t child = ::fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
    ::dup2(null, 2);
    ::execl(program.c_str(), "strata", "run", "--pattern", "M-M*-", "--task", "mqar", "--d-model",
            "32", "--steps", "60", "--batch-size", "4", "--threads", "1", "--set",
            "task.eval_size=8", "--set", "task.seq_len=32", "--set", "task.n_pairs=4", "--set",
            "layers.M.head_dim=16", "--set", "train.checkpoint_every=1", "--set",
            "train.log_every=1", "--set", "layers.*.n_heads=2", "--out", folder.c_str(), "--resume",
            "auto", "--quiet", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool writing(const std::string& checkpoints) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(checkpoints, none)) {
    if (entry.path().filename().string().find(".tmp-") != std::string::npos) return true;
  }
  return false;
}

// The step of the newest complete checkpoint, 0 without one.
std::size_t last_step(const std::string& folder) {
  std::size_t last = 0;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("step-", 0) == 0 && name.find('.') == std::string::npos) {
      last = std::max<std::size_t>(last, std::stoul(name.substr(5)));
    }
  }
  return last;
}

// Waits for a moment of the run, at most until the run is over.
void await(const std::function<bool()>& moment, pid_t child) {
  siginfo_t over{};
  while (!moment() && ::waitid(P_PID, id_t(child), &over, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         over.si_pid == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

void check_same(const std::string& calm, const std::string& killed) {
  for (const char* file : {"/metrics.jsonl", "/checkpoints/step-00000060/model.safetensors",
                           "/checkpoints/step-00000060/optimizer.safetensors"}) {
    CAPTURE(file);
    CHECK(read_file(calm + file) == read_file(killed + file));
  }
}

}  // namespace

TEST_CASE("run: killed at 20 random moments, it resumes to the same bits") {
  const std::string base =
      std::string(STRATA_BINARY_DIR) + "/kill_test_" + std::to_string(::getpid());
  const std::string calm = base + "_calm", killed = base + "_killed";
  REQUIRE(wait_for(start(calm)) == 0);

  // Runs are killed until twenty kills have hit; each run that a kill came too late for has to end
  // like the calm one, and makes room for another.
  Random random(7, 0);
  int kills = 0, during_checkpoint = 0;
  for (int attempt = 0; attempt < 200 && (kills < 20 || during_checkpoint == 0); ++attempt) {
    const pid_t child = start(killed);
    if (attempt % 4 == 3) {
      await([&] { return writing(killed + "/checkpoints"); }, child);
    } else {
      const std::size_t goal = last_step(killed) + random.below(4);
      await([&] { return last_step(killed) >= goal; }, child);
      std::this_thread::sleep_for(std::chrono::microseconds(random.below(4000)));
    }
    ::kill(child, SIGKILL);
    kills += wait_for(child) == 128 + SIGKILL;
    during_checkpoint += writing(killed + "/checkpoints");
    if (fs::exists(killed + "/result.json")) {
      check_same(calm, killed);
      fs::remove_all(killed);
    }
  }
  CHECK(kills >= 20);
  CHECK(during_checkpoint >= 1);
  CHECK(wait_for(start(killed)) == 0);
  check_same(calm, killed);
  CHECK(!writing(killed + "/checkpoints"));
  fs::remove_all(calm);
  fs::remove_all(killed);
}
