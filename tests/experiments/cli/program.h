// Runs the built `strata` as a user would.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

namespace strata::test {

struct Outcome {
  int code = -1;  // exit code, or 128 + signal
  std::string out, err;
};

inline std::string program() { return std::string(STRATA_BINARY_DIR) + "/bin/strata"; }

// Runs a command of the shell.
inline Outcome shell(const std::string& text) {
  static int count = 0;
  const std::string err_file = std::string(STRATA_BINARY_DIR) + "/cli_test_" +
                               std::to_string(::getpid()) + "_" + std::to_string(count++);
  const std::string command = "exec 2>" + err_file + "; " + text;
  Outcome result;
  std::FILE* pipe = ::popen(command.c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    result.out.append(buffer, n);
  const int status = ::pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::ostringstream err;
  err << std::ifstream(err_file).rdbuf();
  result.err = err.str();
  std::remove(err_file.c_str());
  return result;
}

// `arguments` is a shell command line without the program's name.
inline Outcome strata(const std::string& arguments) { return shell(program() + " " + arguments); }

}  // namespace strata::test
