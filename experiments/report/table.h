// Aligned tables for the terminal.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

enum class Tone { plain, good, bad, muted, strong };

struct TableCell {
  std::string text;
  Tone tone = Tone::plain;
};

struct TableColumn {
  std::string title;
  bool right = false;  // numbers stand right
};

class Table {
 public:
  explicit Table(std::vector<TableColumn> columns) : columns_(std::move(columns)) {}
  // Rows may be shorter than the columns; the rest stays empty.
  void add(std::vector<TableCell> row) { rows_.push_back(std::move(row)); }
  // Prints header, rule and rows, each line indented by two spaces; ANSI colours where asked for.
  void print(std::ostream& out, bool colour) const;

 private:
  std::vector<TableColumn> columns_;
  std::vector<std::vector<TableCell>> rows_;
};

// Columns that a UTF-8 text takes (code points; wide and combining characters are not told apart).
size_t display_width(std::string_view text);

// True when file descriptor `fd` is a terminal that shows colours (NO_COLOR and TERM=dumb say no).
bool shows_colour(int fd);

// "1,234,567"
std::string with_commas(int64_t value);
// `value` rounded, with commas; "-" for a value that is no number.
std::string whole_text(double value);
// "8 ms", "3.2 s", "4 min 05 s", "2 h 03 min"
std::string duration_text(double seconds);
// `value` with `digits` after the point; "-" for a value that is no number.
std::string fixed_text(double value, int digits);

}  // namespace strata
