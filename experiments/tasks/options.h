// The [task] table: what keys a task knows, and the values that a run gives them. The same table
// checks a config and prints `strata help task NAME`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/config.h"

namespace strata {

// One key of a [task] table.
struct TaskOption {
  std::string name;
  TaskValue standard;  // the default; its alternative is the type of the key
  std::string unit;    // "tokens", "bytes", "" ...
  std::string help;    // one line
  double min = 0;      // smallest and largest value of a number
  double max = 1e9;
};

// "integer", "number", "true/false", "string" or "list of strings".
std::string value_type(const TaskValue& value);

// The value as it is written in TOML, for help pages and messages.
std::string value_text(const TaskValue& value);

// The options of one task with every default filled in. Whole numbers serve where a number is
// asked for, and one string where a list of strings is.
// Throws Error for an unknown key (naming the nearest), a wrong type, or a number out of range.
class TaskOptions {
 public:
  TaskOptions(std::string_view task, const std::vector<TaskOption>& table, const TaskValues& given);

  bool flag(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  const std::vector<std::string>& list(std::string_view name) const;
  const TaskValues& values() const { return values_; }  // resolved: every key of the table

 private:
  const TaskValue& at(std::string_view name) const;
  TaskValues values_;
};

}  // namespace strata
