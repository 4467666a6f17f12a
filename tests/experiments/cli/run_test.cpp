// strata run as a user meets it: refused, interrupted, on a full disk, diverging, and planned.
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <thread>

#include "core/io/file.h"
#include "core/io/json.h"
#include "tests/experiments/cli/program.h"
#include "tests/support/temp_folder.h"

using namespace strata;
using test::Outcome;

namespace {

namespace fs = std::filesystem;

const std::string kSmall =
    "--pattern 'M-M*-' --task mqar --d-model 32 --batch-size 4 --threads 1 --set task.eval_size=8 "
    "--set layers.M.head_dim=16 --set 'layers.*.n_heads=2' ";

int64_t number(const std::string& file, const char* key) {
  return read_json(file).at(key, file).as_int(file);
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("strata run: a plan beyond --memory-limit is exit code 3 with the table, dry or not") {
  const test::TempFolder folder;
  for (const char* dry : {"", "--dry-run "}) {
    const Outcome o =
        test::strata("run " + kSmall + "--memory-limit 1MiB " + dry + "--out " + folder / "run");
    CHECK(o.code == 3);
    CHECK(has(o.err, "the memory limit is 1.00 MiB"));
    for (const char* arena : {"parameters", "gradients", "optimizer", "activations", "scratch"})
      CHECK(has(o.err, arena));
    CHECK(!fs::exists(folder / "run"));
  }
  const Outcome dry = test::strata("run " + kSmall + "--dry-run");
  CHECK(dry.code == 0);
  CHECK(has(dry.out, "activations"));
}

#ifndef __SANITIZE_ADDRESS__  // a sanitizer's own memory is in no plan
TEST_CASE("strata run: the plan of a run over 1 GB is within 2% of what it uses") {
  const test::TempFolder folder;
  const std::string out = folder / "run";
  const std::string data = folder.write("data.txt", std::string(20'000, 'a'));
  // One step, an evaluation and a checkpoint.
  const Outcome o = test::strata("run --pattern '-M*-' --task text --files " + data +
                                 " --d-model 1664 --batch-size 1 --steps 1 --threads 2 --quiet "
                                 "--set task.seq_len=64 --set task.eval_size=1 --out " +
                                 out);
  REQUIRE_MESSAGE(o.code == 0, o.err);
  const double planned = double(number(out + "/result.json", "planned_bytes"));
  const double used = double(number(out + "/result.json", "used_bytes"));
  CAPTURE(used);
  CHECK(planned > 1e9);
  CHECK(std::abs(used - planned) < 0.02 * planned);
}
#endif

TEST_CASE("strata run: Ctrl-C writes a checkpoint and prints the command that goes on") {
  const test::TempFolder folder;
  const std::string out = folder / "run", err = folder / "err", pid = folder / "pid";
  std::thread user([&] {
    const std::string metrics = out + "/metrics.jsonl";
    for (int i = 0; i < 3000 && (!fs::exists(metrics) || fs::file_size(metrics) == 0); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ::kill(pid_t(std::stol(read_file(pid))), SIGINT);
  });
  const Outcome stopped = test::shell("echo $$ > " + pid + "; exec " + test::program() + " run " +
                                      kSmall + "--steps 200000 --out " + out);
  user.join();
  CHECK(stopped.code == 1);
  const std::string hint = "go on with: ";
  const size_t at = stopped.err.find(hint);
  REQUIRE(at != std::string::npos);
  std::string command = stopped.err.substr(at + hint.size());
  command = command.substr(0, command.find('\n'));
  const int64_t steps = number(out + "/result.json", "steps");
  CHECK(fs::exists(out + "/checkpoints"));

  // The printed command with a nearer end.
  const size_t far = command.find("200000");
  REQUIRE(far != std::string::npos);
  command.replace(far, 6, std::to_string(steps + 3));
  const Outcome on = test::shell(command);
  CHECK_MESSAGE(on.code == 0, on.err);
  CHECK(number(out + "/result.json", "steps") == steps + 3);
}

TEST_CASE("strata run: on a full disk it stops with one sentence, and goes on when there is room") {
  const test::TempFolder folder;
  const std::string out = folder / "run";
  const std::string command = "run " + kSmall +
                              "--quiet --set train.checkpoint_every=4 --resume auto --out " + out +
                              " --steps ";
  // No file may be longer than 300 of the shell's blocks (512 or 1024 bytes): a checkpoint's are.
  const Outcome room = test::strata(command + "5");
  REQUIRE_MESSAGE(room.code == 0, room.err);
  const Outcome full =
      test::shell("trap '' XFSZ; ulimit -f 300; " + test::program() + " " + command + "12");
  CHECK(full.code == 3);
  CHECK(has(full.err, ".safetensors"));
  CHECK(has(full.err, "cannot be written"));
  CHECK(std::count(full.err.begin(), full.err.end(), '\n') == 1);
  for (const auto& entry : fs::directory_iterator(out + "/checkpoints"))
    CHECK(!has(entry.path().string(), ".tmp"));
  CHECK(fs::exists(out + "/checkpoints/step-00000005"));
  const Outcome on = test::strata(command + "12");
  CHECK_MESSAGE(on.code == 0, on.err);
  CHECK(number(out + "/result.json", "steps") == 12);
}

TEST_CASE("strata run: a learning rate without measure ends it as diverged, with the place") {
  const test::TempFolder folder;
  const std::string out = folder / "run";
  const Outcome o = test::strata("run " + kSmall +
                                 "--steps 50 --lr 1e20 --set train.clip=0 --set train.warmup=0 "
                                 "--set train.max_skipped=3 --set train.log_every=1 --out " +
                                 out);
  CHECK(o.code == 1);
  CHECK(has(o.err, "diverged at step 4: 3 steps in a row"));
  CHECK(has(o.err, "it began in block 0 'M' (mamba2)"));
  CHECK(has(o.err, "blocks.0.mixer."));
  CHECK(read_json(out + "/result.json").at("outcome", "").as_string("") == "diverged");
  CHECK(has(read_file(out + "/metrics.jsonl"), "\"skipped\": 3"));
}

TEST_CASE("strata run: a folder that cannot be written is exit code 2 and one sentence") {
  for (const char* out : {"/proc/strata", "/dev/null/run"}) {
    const Outcome o = test::strata("run " + kSmall + "--steps 2 --quiet --out " + out);
    CHECK(o.code == 2);
    CHECK(has(o.err, out));
    CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
  }
}
