// A child process, and how it ended. A crash, a kill or a hang of a child is a result, not a fault
// of the study.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace strata {

struct ChildEnd {
  bool timed_out = false;
  bool signalled = false;
  int code = 0;             // exit code, or the signal's number
  bool oom_killed = false;  // SIGKILL by the kernel for want of memory, as far as can be seen
  double seconds = 0;
  int64_t peak_bytes = 0;  // largest resident size
};

class Child {
 public:
  // Starts argv[0] (a path) with output and errors appended to the file `output`. The child dies
  // with this process. Throws Error where it cannot be started.
  Child(const std::vector<std::string>& argv, const std::string& output, double timeout_seconds);
  ~Child();  // kills and waits for a child that still runs
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;

  // How it ended, or nothing while it runs. Enforces the time limit: SIGTERM, then SIGKILL.
  std::optional<ChildEnd> poll();
  void signal(int number);  // to it and to what it has started
  pid_t id() const { return pid_; }

 private:
  double seconds() const;
  pid_t pid_ = -1;
  double timeout_ = 0;  // 0: none
  bool timed_out_ = false, killed_ = false;
  int64_t oom_kills_before_ = 0;
  std::chrono::steady_clock::time_point started_;
};

// The outcome in one word, and a sentence for what is not ok, from the exit alone: 0 ok, 1 failed,
// 2 refused, 3 resources; crash, killed, oom, timeout.
std::string outcome_of(const ChildEnd& end);
std::string describe(const ChildEnd& end);

// What a child said last: the sentence of its last "strata: ..." line, else its last line that is
// not blank; cut to 400 bytes, "" where there is none.
std::string last_words(const std::string& path);

}  // namespace strata
