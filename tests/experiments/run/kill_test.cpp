// A run killed by SIGKILL at random moments, through the executable and loaded plugins, ends with
// the weights and metrics of a run that nobody touched.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
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

}  // namespace

TEST_CASE("run: killed at 20 random moments, it resumes to the same bits") {
  const std::string base =
      std::string(STRATA_BINARY_DIR) + "/kill_test_" + std::to_string(::getpid());
  const std::string calm = base + "_calm", killed = base + "_killed";
  REQUIRE(wait_for(start(calm)) == 0);

  Random random(7, 0);
  int kills = 0, during_checkpoint = 0;
  for (int attempt = 0; kills < 20 && attempt < 60; ++attempt) {
    const pid_t child = start(killed);
    if (attempt % 4 == 3) {  // wait for a half-written checkpoint
      for (int i = 0; i < 20000 && !writing(killed + "/checkpoints"); ++i) {
        if (::waitpid(child, nullptr, WNOHANG) == child) break;
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
      during_checkpoint += writing(killed + "/checkpoints");
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(20 + int(random.below(120))));
    }
    ::kill(child, SIGKILL);
    kills += wait_for(child) == 128 + SIGKILL;
    if (fs::exists(killed + "/result.json")) break;
  }
  CHECK(kills >= 8);  // a fast machine may be done before the twentieth
  CHECK(during_checkpoint >= 1);
  CHECK(wait_for(start(killed)) == 0);
  for (const char* file : {"/metrics.jsonl", "/checkpoints/step-00000060/model.safetensors",
                           "/checkpoints/step-00000060/optimizer.safetensors"}) {
    CAPTURE(file);
    CHECK(read_file(calm + file) == read_file(killed + file));
  }
  CHECK(!writing(killed + "/checkpoints"));
  fs::remove_all(calm);
  fs::remove_all(killed);
}
