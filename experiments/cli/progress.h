// A progress bar with the time left on a terminal, a line now and then elsewhere, nothing if quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <mutex>
#include <string>
#include <string_view>

namespace strata {

enum class ProgressStyle { bar, lines, quiet };

// What fits a stream of file descriptor `fd`.
ProgressStyle progress_style(int fd, bool quiet);

// Counts steps of one piece of work. All functions may be called from any thread.
class Progress {
 public:
  using Clock = std::function<double()>;  // seconds, never falling

  // `total` steps are ahead, `done` of which were made before (a resumed run). `clock` is for
  // tests.
  Progress(std::ostream& out, ProgressStyle style, std::string label, int64_t total,
           int64_t done = 0, Clock clock = {});
  ~Progress();  // leaves the terminal's line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` steps are made; `note` is short and changes ("loss 2.31").
  void update(int64_t done, std::string_view note = {});
  // Prints a whole line above the bar (in every style but quiet).
  void line(std::string_view text);
  // Clears the bar; later updates show it again.
  void clear();

  // Seconds left at the pace so far; NaN before the first step. Smoothed over recent steps.
  double seconds_left() const;

 private:
  std::string render() const;
  void draw();
  void clear_locked();

  std::ostream& out_;
  ProgressStyle style_;
  std::string label_, note_;
  int64_t total_, done_, shown_percent_ = -1;
  Clock clock_;
  double started_, drawn_ = -1e9, last_time_, seconds_per_step_ = 0;
  int64_t last_done_;
  bool visible_ = false;
  mutable std::mutex mutex_;
};

}  // namespace strata
