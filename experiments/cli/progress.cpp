#include "experiments/cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>

#include "experiments/report/table.h"

namespace strata {
namespace {

constexpr double kRedrawSeconds = 0.1;  // a terminal shows ten bars a second
constexpr double kLineSeconds = 10;     // elsewhere: a line at most every ten seconds ...
constexpr int64_t kLinePercent = 10;    // ... and only for every tenth of the work
constexpr double kSmoothSeconds = 20;   // the pace is that of about the last 20 seconds

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t terminal_columns() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

ProgressStyle progress_style(int fd, bool quiet) {
  if (quiet) return ProgressStyle::quiet;
  return isatty(fd) ? ProgressStyle::bar : ProgressStyle::lines;
}

Progress::Progress(std::ostream& out, ProgressStyle style, std::string label, int64_t total,
                   int64_t done, Clock clock)
    : out_(out),
      style_(style),
      label_(std::move(label)),
      total_(std::max<int64_t>(total, 0)),
      done_(done),
      clock_(clock ? std::move(clock) : steady_seconds),
      started_(clock_()),
      last_time_(started_),
      last_done_(done) {}

Progress::~Progress() { clear(); }

void Progress::update(int64_t done, std::string_view note) {
  if (style_ == ProgressStyle::quiet) return;
  const std::lock_guard lock(mutex_);
  const double now = clock_();
  done_ = std::clamp<int64_t>(done, 0, total_);
  note_ = note;
  if (const int64_t steps = done_ - last_done_; steps > 0 && now > last_time_) {
    // An exponential average whose weight is the time that the steps took.
    const double elapsed = now - last_time_;
    const double pace = elapsed / double(steps);
    const double keep = seconds_per_step_ > 0 ? std::exp(-elapsed / kSmoothSeconds) : 0;
    seconds_per_step_ = keep * seconds_per_step_ + (1 - keep) * pace;
    last_done_ = done_;
    last_time_ = now;
  }
  const int64_t percent = total_ ? 100 * done_ / total_ : 100;
  if (style_ == ProgressStyle::bar) {
    if (now - drawn_ < kRedrawSeconds && done_ < total_) return;
    drawn_ = now;
    draw();
  } else {
    const bool tenth = percent / kLinePercent > std::max<int64_t>(shown_percent_, 0) / kLinePercent;
    const bool due = now - std::max(drawn_, started_) >= kLineSeconds;
    if (!(tenth && due) && !(done_ == total_ && shown_percent_ < 100)) return;
    shown_percent_ = percent;
    drawn_ = now;
    out_ << render() << std::endl;
  }
}

double Progress::seconds_left() const {
  if (seconds_per_step_ <= 0) return std::numeric_limits<double>::quiet_NaN();
  return seconds_per_step_ * double(total_ - done_);
}

std::string Progress::render() const {
  std::string text = label_ + "  " + with_commas(done_) + " of " + with_commas(total_);
  if (done_ < total_ && seconds_per_step_ > 0)
    text += ", " + duration_text(seconds_left()) + " left";
  else if (done_ == total_)
    text += ", took " + duration_text(clock_() - started_);
  if (!note_.empty()) text += ", " + note_;
  return text;
}

void Progress::draw() {
  constexpr size_t kCells = 24;
  static const char* const kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double share = total_ ? double(done_) / double(total_) : 1;
  const auto eighths = size_t(share * kCells * 8);
  std::string bar;
  for (size_t i = 0; i < eighths / 8; ++i) bar += "█";
  bar += kEighths[eighths % 8];
  bar += std::string(kCells - display_width(bar), ' ');
  std::string text = render();
  const size_t columns = terminal_columns();
  const size_t room = columns > kCells + 6 ? columns - kCells - 6 : 0;
  while (display_width(text) > room) {  // cut whole code points
    while (!text.empty() && (text.back() & 0xC0) == 0x80) text.pop_back();
    if (!text.empty()) text.pop_back();
  }
  out_ << "\r\033[2K  ▕" << bar << "▏ " << text << std::flush;
  visible_ = true;
}

void Progress::clear_locked() {
  if (!visible_) return;
  out_ << "\r\033[2K" << std::flush;
  visible_ = false;
}

void Progress::clear() {
  const std::lock_guard lock(mutex_);
  clear_locked();
}

void Progress::line(std::string_view text) {
  if (style_ == ProgressStyle::quiet) return;
  const std::lock_guard lock(mutex_);
  const bool again = visible_;
  clear_locked();
  out_ << text << std::endl;
  if (again) draw();
}

}  // namespace strata
