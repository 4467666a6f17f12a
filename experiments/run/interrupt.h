// Ctrl-C and SIGTERM as a wish: the work ends at the next safe place. A second one ends at once.
#pragma once

namespace strata {

// From construction to destruction, SIGINT and SIGTERM set a flag instead of ending the process.
// One object at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // The number of the signal that came, or 0.
  int signal() const;
  explicit operator bool() const { return signal() != 0; }
};

}  // namespace strata
