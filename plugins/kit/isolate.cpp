#include "plugins/kit/isolate.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace strata::kit {
namespace {

constexpr unsigned kSeconds = 600;

// Shared with the children.
constexpr size_t kNote = 256;
char* shared_note() {
  static char* note = [] {
    void* p = mmap(nullptr, kNote, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
  }();
  return note;
}

// One row a line: verdict, error, tolerance, check, note. Hexadecimal floats keep every bit.
std::string pack(const Rows& rows) {
  std::string text;
  for (CheckRow row : rows) {
    for (char& c : row.note)
      if (c == '\n' || c == '\t') c = ' ';
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "%d\t%a\t%a\t", int(row.verdict), row.error,
                  row.tolerance);
    text += numbers + row.check + "\t" + row.note + "\n";
  }
  return text;
}

Rows unpack(const std::string& text) {
  Rows rows;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    CheckRow row;
    char* at = nullptr;
    row.verdict = CheckVerdict(std::strtol(text.c_str() + begin, &at, 10));
    row.error = std::strtod(at, &at);
    row.tolerance = std::strtod(at, &at);
    const size_t check = size_t(at - text.c_str()) + 1, tab = text.find('\t', check);
    row.check = text.substr(check, tab - check);
    row.note = text.substr(tab + 1, end - tab - 1);
    rows.push_back(std::move(row));
  }
  return rows;
}

[[noreturn]] void run_and_exit(int out, const std::string& name, const std::function<Rows()>& run) {
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM})
    ::signal(signal, SIG_DFL);
  alarm(kSeconds);
  const std::string text = pack(run_caught(name, run));
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(out, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) break;
    if (n > 0) done += size_t(n);
  }
  _exit(0);
}

std::string work_note() {
  const char* note = shared_note();
  return note && *note ? std::string(" at ") + note : "";
}

Rows run_child(const std::string& name, const std::function<Rows()>& run) {
  at_work("");
  int ends[2];
  if (pipe(ends) != 0) return run_caught(name, run);
  const pid_t child = fork();
  if (child < 0) {
    close(ends[0]);
    close(ends[1]);
    return run_caught(name, run);
  }
  if (child == 0) {
    close(ends[0]);
    run_and_exit(ends[1], name, run);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) != 0;) {
    if (n > 0) text.append(buffer, size_t(n));
    if (n < 0 && errno != EINTR) break;
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return unpack(text);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
    return {failed(name, "does not end within " + std::to_string(kSeconds) + " s" + work_note())};
  return {
      failed(name, WIFSIGNALED(status)
                       ? std::string("crashes") + work_note() + ": " + strsignal(WTERMSIG(status))
                       : "ends the process with code " + std::to_string(WEXITSTATUS(status)))};
}

}  // namespace

void at_work(const std::string& what) {
  if (char* note = shared_note()) std::snprintf(note, kNote, "%s", what.c_str());
}

Rows run_caught(const std::string& name, const std::function<Rows()>& run) {
  try {
    return run();
  } catch (const Error& e) {
    return {failed(name, e.what())};
  } catch (const std::exception& e) {
    return {failed(name, std::string("throws, and no strata::Error: ") + e.what())};
  } catch (...) {
    return {failed(name, "throws something that is no std::exception")};
  }
}

Rows run_in_child(const std::string& name, const std::function<Rows()>& run) {
  // OpenMP keeps its threads per calling thread, and a child has none of them: a fresh thread that
  // forks starts its own.
  Rows rows;
  std::thread([&] { rows = run_child(name, run); }).join();
  return rows;
}

}  // namespace strata::kit
