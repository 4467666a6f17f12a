// A task fills batches of tokens and labels. Every example is a pure function of
// (task options, split, seed, step, index): neither the batch size, nor the thread, nor the order
// of calls changes it, so a resumed or distributed run sees the same data.
//
// Labels are already shifted for the loss: labels[t] is the token that the model must predict from
// its output at position t, and kIgnore where there is no loss. For a language model
// labels[t] == tokens[t + 1].
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/random.h"
#include "experiments/tasks/options.h"

namespace strata {

inline constexpr int32_t kIgnore = -100;  // a label without loss

enum class Split { train, eval };

// One example, to be filled. All three have seq_len entries.
struct Example {
  std::span<int32_t> tokens;
  std::span<int32_t> labels;
  std::span<int32_t> seq_idx;  // number of the document that a position belongs to, from 0
};

// A batch in the layout of the model: row-major (batch, seq_len).
struct Batch {
  int64_t batch = 0, seq_len = 0;
  std::vector<int32_t> tokens, labels, seq_idx;

  Batch() = default;
  Batch(int64_t batch, int64_t seq_len);
  Example row(int64_t index);
};

class Task {
 public:
  virtual ~Task() = default;

  virtual std::string name() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t seq_len(Split split) const = 0;  // tokens of one example
  virtual int64_t eval_size() const = 0;           // examples of the evaluation set

  // What is reported: "accuracy" (share of labels predicted, higher is better) or
  // "bits_per_byte" (mean loss / ln 2, lower is better).
  virtual std::string metric() const { return "accuracy"; }
  bool higher_is_better() const { return metric() == "accuracy"; }
  // Accuracy of a guess among all tokens that can be an answer.
  virtual double chance() const = 0;
  // Accuracy of a guess among the values that the example itself shows.
  virtual double in_context_floor() const = 0;

  // Fills one example; safe from any thread. In training, `index` is the row within the step over
  // all microbatches and ranks. In evaluation, `step` is 0 and `index` runs over [0, eval_size()).
  virtual void fill_example(Split split, uint64_t seed, int64_t step, int64_t index,
                            Example out) const = 0;

  // Fills rows [first_index, first_index + batch.batch) of a step.
  void fill(Split split, uint64_t seed, int64_t step, int64_t first_index, Batch& batch) const;
};

// The random stream of one example.
Random example_random(std::string_view task, Split split, uint64_t seed, int64_t step,
                      int64_t index);

// The names of all tasks, in the order of the help page.
const std::vector<std::string>& task_names();
// One line about a task, and its keys. Throw Error for a name that is no task.
std::string task_summary(std::string_view name);
const std::vector<TaskOption>& task_options(std::string_view name);
// Checks [task] against its table and fills in the defaults. Throws as make_task does for keys.
void resolve_task(TaskConfig& task);
// Builds a task. Throws Error for an unknown name or key, or for values that do not go together.
std::unique_ptr<Task> make_task(std::string_view name, const TaskValues& values = {});

}  // namespace strata
