#include <unistd.h>

#include <cstdlib>

#include "experiments/cli/command.h"

// libgomp's threads spin for milliseconds at every barrier; on a busy machine, where a waiting
// thread holds the core that the awaited one needs, a small model then trains a hundred times
// slower. libgomp reads its settings when it is loaded, so a short spin means to start again.
static void spin_briefly(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  ::setenv("GOMP_SPINCOUNT", "1000", 1);
  ::execv("/proc/self/exe", argv);  // where that is not possible, it only is slower
}

int main(int argc, char** argv) {
  spin_briefly(argv);
  return strata::run_cli(argc, argv);
}
