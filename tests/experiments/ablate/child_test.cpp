#include "experiments/ablate/child.h"

#include <doctest/doctest.h>
#include <signal.h>

#include <thread>

#include "core/io/file.h"
#include "tests/support/temp_folder.h"

using namespace strata;

namespace {

ChildEnd finished(Child& child) {
  for (int i = 0; i < 4000; ++i) {
    if (const auto end = child.poll()) return *end;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  FAIL("the child did not end");
  return {};
}

ChildEnd shell(const std::string& script, const std::string& output, double timeout = 0) {
  Child child({"/bin/sh", "-c", script}, output, timeout);
  return finished(child);
}

}  // namespace

TEST_CASE("every end of a child has its word") {
  const test::TempFolder folder;
  const std::string out = folder / "output.txt";
  CHECK(outcome_of(shell("exit 0", out)) == "ok");
  CHECK(outcome_of(shell("exit 1", out)) == "failed");
  CHECK(outcome_of(shell("echo 'bad key' >&2; exit 2", out)) == "refused");
  CHECK(last_words(out) == "bad key");
  CHECK(outcome_of(shell("echo 'strata: no memory'; echo '  total 5'; exit 3", out)) ==
        "resources");
  CHECK(last_words(out) == "no memory");
  CHECK(outcome_of(shell("kill -SEGV $$", out)) == "crash");
  CHECK(outcome_of(shell("kill -ABRT $$", out)) == "crash");
  CHECK(outcome_of(shell("kill -KILL $$", out)) == "killed");
  CHECK(describe(shell("kill -SEGV $$", out)) == "ended by signal 11 (Segmentation fault)");
  const ChildEnd late = shell("sleep 30", out, 0.1);
  CHECK(outcome_of(late) == "timeout");
  CHECK(late.seconds < 10);
  Child missing({"/no/such/file"}, out, 0);
  CHECK(describe(finished(missing)) == "the executable could not be started");
}

TEST_CASE("a child is measured, reached by signals, and does not outlive its owner") {
  const test::TempFolder folder;
  const std::string out = folder / "output.txt";
  CHECK(shell("exit 0", out).peak_bytes > 100'000);
  Child child(
      {"/bin/sh", "-c", "trap 'echo caught; exit 1' INT; echo ready; while :; do sleep 0.01; done"},
      out, 0);
  while (last_words(out) != "ready") std::this_thread::sleep_for(std::chrono::milliseconds(5));
  child.signal(SIGINT);
  CHECK(outcome_of(finished(child)) == "failed");
  CHECK(last_words(out) == "caught");
  pid_t id = 0;
  {
    Child left({"/bin/sleep", "60"}, out, 0);
    id = left.id();
    CHECK(::kill(id, 0) == 0);
  }
  CHECK(::kill(id, 0) != 0);
}
