#include "experiments/run/interrupt.h"

#include <signal.h>

namespace strata {
namespace {

volatile sig_atomic_t seen = 0;
struct sigaction old_int, old_term;

void note(int number) {
  if (seen) {  // the second time: as if there were no handler
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    ::sigaction(number, &plain, nullptr);
    ::raise(number);
  }
  seen = number;
}

}  // namespace

Interrupt::Interrupt() {
  seen = 0;
  struct sigaction action {};
  action.sa_handler = note;
  ::sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, &old_int);
  ::sigaction(SIGTERM, &action, &old_term);
}

Interrupt::~Interrupt() {
  ::sigaction(SIGINT, &old_int, nullptr);
  ::sigaction(SIGTERM, &old_term, nullptr);
}

int Interrupt::signal() const { return seen; }

}  // namespace strata
