#include "experiments/tasks/task.h"

#include <cassert>

#include "experiments/tasks/induction.h"
#include "experiments/tasks/mqar.h"
#include "experiments/tasks/selective_copy.h"
#include "experiments/tasks/text.h"

namespace strata {
namespace {

struct Entry {
  const char* summary;
  const std::vector<TaskOption>& (*table)();
  std::unique_ptr<Task> (*make)(const TaskOptions&);
};

template <typename T>
std::unique_ptr<Task> make(const TaskOptions& options) {
  return std::make_unique<T>(options);
}

const Entry& entry(std::string_view name) {
  static const Entry kEntries[] = {
      {"multi-query associative recall: pairs key value, then keys whose value is asked for",
       Mqar::table, make<Mqar>},
      {"data tokens scattered in noise, to be repeated in order", SelectiveCopy::table,
       make<SelectiveCopy>},
      {"one special token, seen again at the end: which token followed it?", Induction::table,
       make<Induction>},
      {"byte-level language modelling on files of this machine", Text::table, make<Text>},
  };
  const auto& names = task_names();
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return kEntries[i];
  std::string known;
  for (const std::string& each : names) known += (known.empty() ? "" : ", ") + each;
  throw Error("[task] name is '" + std::string(name) + "', which is no task; there are " + known);
}

}  // namespace

Batch::Batch(int64_t batch, int64_t seq_len)
    : batch(batch),
      seq_len(seq_len),
      tokens(size_t(batch * seq_len)),
      labels(size_t(batch * seq_len)),
      seq_idx(size_t(batch * seq_len)) {}

Example Batch::row(int64_t index) {
  const auto part = [&](std::vector<int32_t>& all) {
    return std::span(all).subspan(size_t(index * seq_len), size_t(seq_len));
  };
  return {part(tokens), part(labels), part(seq_idx)};
}

void Task::fill(Split split, uint64_t seed, int64_t step, int64_t first_index, Batch& batch) const {
  assert(batch.seq_len == seq_len(split));
  for (int64_t b = 0; b < batch.batch; ++b)
    fill_example(split, seed, step, first_index + b, batch.row(b));
}

Random example_random(std::string_view task, Split split, uint64_t seed, int64_t step,
                      int64_t index) {
  const uint64_t purpose = stream_of(task) ^ (split == Split::eval ? stream_of("eval") : 0);
  const auto words = philox(uint64_t(step), uint64_t(index), seed ^ purpose);
  return Random(seed, words[0] | uint64_t{words[1]} << 32);
}

const std::vector<std::string>& task_names() {
  static const std::vector<std::string> kNames{"mqar", "selective_copy", "induction", "text"};
  return kNames;
}

std::string task_summary(std::string_view name) { return entry(name).summary; }

const std::vector<TaskOption>& task_options(std::string_view name) { return entry(name).table(); }

void resolve_task(TaskConfig& task) {
  task.options = TaskOptions(task.name, task_options(task.name), task.options).values();
}

std::unique_ptr<Task> make_task(std::string_view name, const TaskValues& values) {
  const Entry& found = entry(name);
  return found.make(TaskOptions(name, found.table(), values));
}

}  // namespace strata
