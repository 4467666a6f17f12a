#include "experiments/tasks/options.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <sstream>

#include "core/contract/error.h"

namespace strata {
namespace {

[[noreturn]] void unknown_key(std::string_view task, const std::vector<TaskOption>& table,
                              std::string_view key) {
  std::vector<std::string> names;
  for (const TaskOption& option : table) names.push_back(option.name);
  std::string text = "[task] has the key '" + std::string(key) + "', which the task '" +
                     std::string(task) + "' does not know";
  const std::string near = nearest(std::string(key), names);
  if (!near.empty()) text += "; the nearest is '" + near + "'";
  throw Error(text + " (see strata help task " + std::string(task) + ")");
}

std::string number_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return std::to_string(int64_t(value));
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string article(const TaskValue& value) {
  const std::string name = value_type(value);
  return (name == "true/false" ? "" : name == "integer" ? "an " : "a ") + name;
}

// `given` in the type of `standard`, or an Error.
TaskValue converted(const std::string& where, const TaskOption& option, const TaskValue& given) {
  TaskValue value = given;
  if (std::holds_alternative<double>(option.standard) && std::holds_alternative<int64_t>(given))
    value = double(std::get<int64_t>(given));
  if (std::holds_alternative<std::vector<std::string>>(option.standard) &&
      std::holds_alternative<std::string>(given))
    value = std::vector<std::string>{std::get<std::string>(given)};
  if (value.index() != option.standard.index())
    throw Error(where + " must be " + article(option.standard) + ", got " + value_text(given) +
                " (" + value_type(given) + ")");
  double number = 0;
  if (const auto* whole = std::get_if<int64_t>(&value)) number = double(*whole);
  if (const auto* real = std::get_if<double>(&value)) number = *real;
  const bool numeric =
      std::holds_alternative<int64_t>(value) || std::holds_alternative<double>(value);
  if (numeric && !(number >= option.min && number <= option.max))
    throw Error(where + " must be from " + number_text(option.min) + " to " +
                number_text(option.max) + ", got " + value_text(given));
  return value;
}

}  // namespace

std::string value_type(const TaskValue& value) {
  static const char* const kNames[] = {"true/false", "integer", "number", "string",
                                       "list of strings"};
  return kNames[value.index()];
}

std::string value_text(const TaskValue& value) {
  const auto quoted = [](const std::string& text) {
    std::string out = "\"";
    for (char c : text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + "\"";
  };
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* whole = std::get_if<int64_t>(&value)) return std::to_string(*whole);
  if (const auto* real = std::get_if<double>(&value)) return number_text(*real);
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  std::string out = "[";
  for (const std::string& item : std::get<std::vector<std::string>>(value))
    out += (out.size() > 1 ? ", " : "") + quoted(item);
  return out + "]";
}

TaskOptions::TaskOptions(std::string_view task, const std::vector<TaskOption>& table,
                         const TaskValues& given) {
  for (const auto& [key, value] : given) {
    const auto found = std::find_if(table.begin(), table.end(),
                                    [&, &key = key](const auto& o) { return o.name == key; });
    if (found == table.end()) unknown_key(task, table, key);
    values_[key] = converted("[task] " + key + " of '" + std::string(task) + "'", *found, value);
  }
  for (const TaskOption& option : table) values_.try_emplace(option.name, option.standard);
}

const TaskValue& TaskOptions::at(std::string_view name) const {
  const auto found = values_.find(name);
  assert(found != values_.end() && "a task reads only keys of its own table");
  return found->second;
}

bool TaskOptions::flag(std::string_view name) const { return std::get<bool>(at(name)); }
int64_t TaskOptions::integer(std::string_view name) const { return std::get<int64_t>(at(name)); }
double TaskOptions::number(std::string_view name) const { return std::get<double>(at(name)); }
const std::string& TaskOptions::text(std::string_view name) const {
  return std::get<std::string>(at(name));
}
const std::vector<std::string>& TaskOptions::list(std::string_view name) const {
  return std::get<std::vector<std::string>>(at(name));
}

}  // namespace strata
