#include "experiments/report/table.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ostream>

namespace strata {
namespace {

const char* code_of(Tone tone) {
  static const char* const kCodes[] = {"", "\033[32m", "\033[31m", "\033[2m", "\033[1m"};
  return kCodes[int(tone)];
}

}  // namespace

size_t display_width(std::string_view text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void Table::print(std::ostream& out, bool colour) const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(display_width(columns_[c].title));
    for (const auto& row : rows_)
      if (c < row.size()) widths[c] = std::max(widths[c], display_width(row[c].text));
  }
  const auto line = [&](const auto& cell_at) {
    std::string text, pending;  // spaces wait, so that no line ends in them
    for (size_t c = 0; c < columns_.size(); ++c) {
      const TableCell cell = cell_at(c);
      const std::string space(widths[c] - std::min(widths[c], display_width(cell.text)), ' ');
      pending += "  ";
      if (columns_[c].right) pending += space;
      if (!cell.text.empty()) {
        const bool dressed = colour && cell.tone != Tone::plain;
        text += pending;
        text += dressed ? code_of(cell.tone) + cell.text + "\033[0m" : cell.text;
        pending.clear();
      }
      if (!columns_[c].right) pending += space;
    }
    out << text << '\n';
  };
  line([&](size_t c) { return TableCell{columns_[c].title, Tone::strong}; });
  line([&](size_t c) {
    std::string rule;
    for (size_t i = 0; i < widths[c]; ++i) rule += "─";
    return TableCell{rule, Tone::muted};
  });
  for (const auto& row : rows_)
    line([&](size_t c) { return c < row.size() ? row[c] : TableCell{}; });
}

bool shows_colour(int fd) {
  const char* term = std::getenv("TERM");
  const char* refused = std::getenv("NO_COLOR");
  return isatty(fd) && !(refused && *refused) && term && std::string_view(term) != "dumb";
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  for (long at = long(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3)
    digits.insert(size_t(at), ",");
  return digits;
}

std::string whole_text(double value) {
  return std::isfinite(value) ? with_commas(std::llround(value)) : "-";
}

std::string duration_text(double seconds) {
  char text[64];
  const double s = std::max(seconds, 0.0);
  if (!std::isfinite(seconds)) return "-";
  if (s < 0.9995)
    std::snprintf(text, sizeof text, "%.0f ms", s * 1e3);
  else if (s < 99.95)
    std::snprintf(text, sizeof text, "%.1f s", s);
  else if (s < 3599.5) {
    const long whole = std::lround(s);
    std::snprintf(text, sizeof text, "%ld min %02ld s", whole / 60, whole % 60);
  } else {
    const long minutes = std::lround(s / 60);
    std::snprintf(text, sizeof text, "%ld h %02ld min", minutes / 60, minutes % 60);
  }
  return text;
}

std::string fixed_text(double value, int digits) {
  if (std::isnan(value)) return "-";
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

}  // namespace strata
