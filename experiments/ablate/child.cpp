#include "experiments/ablate/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/contract/error.h"
#include "experiments/report/table.h"

namespace strata {
namespace {

constexpr double kGraceSeconds = 10;  // between SIGTERM and SIGKILL

// Processes of this control group that the kernel has killed for want of memory so far.
int64_t oom_kills() {
  std::ifstream file("/sys/fs/cgroup/memory.events");
  std::string key;
  for (int64_t count = 0; file >> key >> count;)
    if (key == "oom_kill") return count;
  return 0;
}

}  // namespace

Child::Child(const std::vector<std::string>& argv, const std::string& output,
             double timeout_seconds)
    : timeout_(timeout_seconds),
      oom_kills_before_(oom_kills()),
      started_(std::chrono::steady_clock::now()) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const int log = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) throw Error("cannot write '" + output + "': " + std::strerror(errno));
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {  // only calls that are safe between fork and exec
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    ::setpgid(0, 0);  // Ctrl-C reaches the study, which passes it on
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execv(words[0], words.data());
    ::_exit(127);
  }
  const int error = errno;
  if (pid_ > 0) ::setpgid(pid_, pid_);  // both sides do it: whoever comes first
  ::close(log);
  if (nothing >= 0) ::close(nothing);
  if (pid_ < 0)
    throw Error(std::string("cannot start a process: ") + std::strerror(error),
                ErrorKind::resource);
}

Child::Child(Child&& other) noexcept
    : pid_(other.pid_),
      timeout_(other.timeout_),
      timed_out_(other.timed_out_),
      killed_(other.killed_),
      oom_kills_before_(other.oom_kills_before_),
      started_(other.started_) {
  other.pid_ = -1;
}

Child::~Child() {
  if (pid_ < 0) return;
  ::kill(-pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

double Child::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

void Child::signal(int number) {
  if (pid_ > 0) ::kill(-pid_, number);
}

std::optional<ChildEnd> Child::poll() {
  if (pid_ < 0) return {};
  int status = 0;
  rusage usage{};
  if (::wait4(pid_, &status, WNOHANG, &usage) != pid_) {
    if (timeout_ > 0 && seconds() > timeout_ && !timed_out_) {
      timed_out_ = true;
      ::kill(-pid_, SIGTERM);
    }
    if (timed_out_ && !killed_ && seconds() > timeout_ + kGraceSeconds) {
      killed_ = true;
      ::kill(-pid_, SIGKILL);
    }
    return {};
  }
  pid_ = -1;
  ChildEnd end;
  end.timed_out = timed_out_;
  end.signalled = WIFSIGNALED(status);
  end.code = end.signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  end.oom_killed =
      end.signalled && end.code == SIGKILL && !killed_ && oom_kills() > oom_kills_before_;
  end.seconds = seconds();
  end.peak_bytes = int64_t(usage.ru_maxrss) * 1024;
  return end;
}

std::string outcome_of(const ChildEnd& end) {
  if (end.timed_out) return "timeout";
  if (end.signalled) {
    if (end.oom_killed) return "oom";
    const bool asked =
        end.code == SIGKILL || end.code == SIGTERM || end.code == SIGINT || end.code == SIGHUP;
    return asked ? "killed" : "crash";
  }
  switch (end.code) {
    case 0:
      return "ok";
    case 1:
      return "failed";
    case 2:
      return "refused";
    case 3:
      return "resources";
    default:
      return "crash";
  }
}

std::string describe(const ChildEnd& end) {
  if (end.timed_out) return "stopped after " + duration_text(end.seconds);
  if (end.oom_killed) return "killed by the kernel for want of memory";
  if (end.signalled)
    return std::string("ended by signal ") + std::to_string(end.code) + " (" + strsignal(end.code) +
           ")";
  if (end.code == 127) return "the executable could not be started";
  return "ended with exit code " + std::to_string(end.code);
}

std::string last_words(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  file.seekg(std::max<std::streamoff>(0, std::streamoff(file.tellg()) - 4096));
  // A complaint of the program may go on for some lines, such as a table; its first is the
  // sentence.
  constexpr std::string_view kProgram = "strata: ";
  std::string last, complaint;
  for (std::string line; std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
    if (line.starts_with(kProgram)) complaint = line.substr(kProgram.size());
  }
  return (complaint.empty() ? last : complaint).substr(0, 400);
}

}  // namespace strata
