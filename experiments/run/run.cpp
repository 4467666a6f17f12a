#include "experiments/run/run.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <ostream>
#include <set>

#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/toml.h"
#include "core/model/config_schema.h"
#include "core/tensor/device.h"
#include "core/train/checkpoint.h"
#include "experiments/report/table.h"
#include "experiments/run/journal.h"
#include "experiments/run/record.h"
#include "experiments/run/task_source.h"
#include "experiments/tasks/options.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

bool on_device(const Config& config) {
  return parse_device(config.model.device).kind != DeviceKind::cpu;
}

// Throws Error naming every key in which two configs of one run differ. The length of the run
// and what it writes may change; a stated thread count may not where the CPU computes, since it
// decides the last bits.
void require_same_run(const Config& then, const Config& now, const std::string& folder) {
  if (now.train.threads != 0 && now.train.threads != then.train.threads && !on_device(now)) {
    throw Error(folder + ": the run has train.threads = " + std::to_string(then.train.threads) +
                ", now it is " + std::to_string(now.train.threads) +
                "; another number changes the last bits, so leave it out or start a new run");
  }
  Config adjusted = now;
  adjusted.train.threads = then.train.threads;
  adjusted.train.steps = then.train.steps;
  adjusted.model.device = then.model.device;  // a checkpoint moves between devices
  if (config_hash(adjusted) == config_hash(then)) return;
  const auto leaves = [](const Config& config) {
    const auto all = toml_leaves(parse_toml(to_toml(config), "config"));
    return std::map<std::string, std::string>(all.begin(), all.end());
  };
  const auto old_keys = leaves(then), new_keys = leaves(adjusted);
  const auto text = [](const std::map<std::string, std::string>& keys, const std::string& key) {
    const auto found = keys.find(key);
    return found == keys.end() ? "its default" : found->second;
  };
  std::set<std::string> names;
  for (const auto* keys : {&old_keys, &new_keys})
    for (const auto& [name, value] : *keys) names.insert(name);
  for (const ConfigKey& key : config_keys())
    if (!key.identity || key.section == "ablate") names.erase(key.full_name());
  std::string changed;
  for (const std::string& name : names) {
    const std::string was = text(old_keys, name), is = text(new_keys, name);
    if (was != is)
      changed += (changed.empty() ? "" : ", ") + name + " = " + is + " (was " + was + ")";
  }
  throw Error(folder + ": the run that lies here has another config: " + changed +
              "; change it back or choose another --out");
}

const char* outcome_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::input:
      return "refused";
    case ErrorKind::resource:
      return "resources";
    case ErrorKind::device:
      return "device";
    case ErrorKind::fault:
      return "fault";
    case ErrorKind::lost:
      return "lost";
  }
  return "failed";
}

// What the machine did to a run is its result until it is run again. Mistakes of the user leave the
// folder, which may be that of another run, as it is; so does a run that had come to its end.
void record_failure(const Config& config, const std::string& folder, const Error& error) {
  std::error_code none;
  const auto before = read_summary(folder);
  if (error.kind() == ErrorKind::input || !fs::is_directory(folder, none)) return;
  if (before && (before->outcome == "ok" || before->outcome == "diverged")) return;
  RunSummary summary;
  summary.outcome = outcome_of(error.kind());
  summary.message = error.what();
  summary.message.resize(std::min(summary.message.find('\n'), summary.message.size()));
  summary.metric = std::numeric_limits<double>::quiet_NaN();
  summary.steps = last_step(folder);
  Config resolved = config;  // as the run itself would have recorded it
  if (resolved.train.threads == 0) resolved.train.threads = omp_get_num_procs();
  try {
    summary.device = to_string(parse_device(config.model.device));
    summary.config_hash = config_hash(resolved);
    write_summary(folder, summary);
  } catch (const Error&) {  // a full disk: what failed first is what is said
  }
}

class Run {
 public:
  Run(Config config, LayerFactory& factory, const RunSettings& settings)
      : settings_(settings), folder_(settings.folder), config_(std::move(config)) {
    require_runnable(config_, "the config");
    const bool begun = fs::exists(folder_ + "/record.json");
    if (begun && !settings_.resume) {
      throw Error(folder_ +
                  ": holds a run already; continue it with --resume auto, or choose another --out");
    }
    if (begun) {
      const Config then = load_config(folder_ + "/config.toml");
      require_same_run(then, config_, folder_);
      check_plugins(folder_, settings_.plugins);
      if (config_.train.threads == 0) config_.train.threads = then.train.threads;
    }
    if (config_.train.threads == 0) config_.train.threads = omp_get_num_procs();
    omp_set_num_threads(int(config_.train.threads));
    source_ = std::make_unique<TaskSource>(config_.task);
    Config assembled = config_;
    if (assembled.model.vocab_size == 0) assembled.model.vocab_size = source_->vocab_size();
    if (assembled.model.vocab_size < source_->vocab_size()) {
      throw Error("model.vocab_size = " + std::to_string(assembled.model.vocab_size) +
                  " is smaller than the " + std::to_string(source_->vocab_size()) +
                  " tokens of the task; leave it out or raise it");
    }
    reset_peak_resident_memory();
    resident_before_ = resident_memory();
    model_ = std::make_unique<Model>(std::move(assembled), factory);
    trainer_ = std::make_unique<Trainer>(*model_, *source_, config_.train);
    fill_summary();
  }

  RunSummary run() {
    if (const auto before = read_summary(folder_); before && settings_.resume &&
                                                   before->outcome == "ok" &&
                                                   before->config_hash == summary_.config_hash) {
      return *before;
    }
    make_folders(folder_);
    log_ = std::make_unique<Journal>(folder_ + "/log.txt");
    restore();
    fs::remove(folder_ + "/result.json");
    write_file(folder_ + "/config.toml", to_toml(config_));
    if (!fs::exists(folder_ + "/record.json")) {
      const Json record = make_record(config_, settings_.plugins, settings_.command_line);
      write_file(folder_ + "/record.json", record.dump(2) + "\n");
    }
    metrics_ = std::make_unique<Journal>(folder_ + "/metrics.jsonl");
    if (settings_.messages) {
      progress_ = std::make_unique<Progress>(*settings_.messages, settings_.style, "train",
                                             config_.train.steps, trainer_->steps_done());
    }
    log_->line("on " + device_record(model_->device(), config_.train.deterministic).dump());
    log_->line(config_.model.pattern + ", " + std::to_string(summary_.parameters) +
               " parameters; memory by arena, in bytes:\n" + trainer_->plan().table());
    started_ = std::chrono::steady_clock::now();
    try {
      loop();
    } catch (const Diverged& e) {
      summary_.outcome = "diverged";
      summary_.message = e.what();
      log_step(e.last);
      log_->line(summary_.message);
    }
    if (progress_) progress_->clear();
    summary_.steps = trainer_->steps_done();
    summary_.seconds = seconds();
    summary_.tokens_per_second =
        double(summary_.steps * config_.train.batch_size * source_->train_seq_len()) /
        std::max(1e-9, summary_.seconds);
    summary_.peak_bytes = int64_t(peak_resident_memory());
    summary_.planned_bytes = int64_t(trainer_->plan().total());
    summary_.used_bytes =
        on_device(config_) ? device_peak_bytes() : summary_.peak_bytes - int64_t(resident_before_);
    log_->line("memory planned " + format_bytes(size_t(summary_.planned_bytes)) + ", used " +
               format_bytes(size_t(std::max<int64_t>(0, summary_.used_bytes))));
    write_summary(folder_, summary_);
    return summary_;
  }

 private:
  int64_t device_peak_bytes() const { return int64_t(driver_of(model_->device()).peak_bytes()); }

  void fill_summary() {
    const Task& task = source_->task();
    summary_.metric_name = task.metric();
    summary_.metric = std::numeric_limits<double>::quiet_NaN();
    summary_.higher_is_better = task.higher_is_better();
    summary_.chance = task.chance();
    summary_.floor = task.in_context_floor();
    summary_.parameters = model_->params().count();
    summary_.device = to_string(model_->device());
    summary_.config_hash = config_hash(config_);
  }

  // Goes back to the newest good checkpoint; without one the run starts anew.
  void restore() {
    std::vector<std::string> damaged;
    const std::string path = latest_checkpoint(checkpoints(), &damaged);
    if (path.empty() && !damaged.empty()) {
      throw Error(damaged.front() + "; no checkpoint in " + checkpoints() +
                  " is good: remove that folder to begin anew, or choose another --out");
    }
    for (const std::string& what : damaged) {
      const std::string text = "passed over: " + what + "; going on from " + path;
      log_->line(text);
      if (settings_.messages) *settings_.messages << text << "\n";
    }
    if (!path.empty()) {
      const Json extra = parse_json(load_checkpoint(path, *trainer_), path);
      if (trainer_->steps_done() > config_.train.steps) {
        throw Error(folder_ + ": the run that lies here has made " +
                    std::to_string(trainer_->steps_done()) + " steps, and train.steps is now " +
                    std::to_string(config_.train.steps) + "; raise it or choose another --out");
      }
      seconds_before_ = extra.at("seconds", path).as_double(path);
      if (const Json* metric = extra.find("metric"); metric && metric->is_number()) {
        summary_.metric = metric->as_double(path);
      }
    }
    cut_metrics(folder_ + "/metrics.jsonl", trainer_->steps_done());
  }

  void loop() {
    const TrainConfig& t = config_.train;
    const int64_t eval_every = t.eval_every > 0 ? t.eval_every : std::max<int64_t>(1, t.steps / 10);
    while (!trainer_->finished() && !summary_.reached_target) {
      const StepReport r = trainer_->step();
      const bool last = trainer_->finished();
      tokens_ += r.tokens;
      if (r.step % t.log_every == 0 || last || r.skipped) log_step(r);
      if (r.step % eval_every == 0 || last) evaluate(r.step);
      const int signal = settings_.interrupted ? settings_.interrupted() : 0;
      const bool due = t.checkpoint_every > 0 && r.step % t.checkpoint_every == 0;
      if (due || last || summary_.reached_target || signal) save();
      if (progress_) progress_->update(r.step, note(r));
      if (signal && !last && !summary_.reached_target) {
        summary_.outcome = "interrupted";
        summary_.message =
            "stopped after step " + std::to_string(r.step) + " with a checkpoint" +
            (settings_.resume_hint.empty() ? "" : "; go on with: " + settings_.resume_hint);
        return;
      }
    }
  }

  void log_step(const StepReport& r) {
    Json line = Json::object();
    line.set("step", r.step).set("loss", finite(r.loss)).set("grad_norm", finite(r.grad_norm));
    line.set("lr", r.lr).set("labelled", r.labelled).set("skipped", r.skipped_so_far);
    if (r.aux_loss != 0) line.set("aux_loss", finite(r.aux_loss));
    metrics_->line(line.dump());
    const std::string speed = with_commas(int64_t(double(tokens_) / std::max(1e-9, sitting())));
    log_->line("step " + std::to_string(r.step) + "  loss " + fixed_text(r.loss, 4) +
               "  grad_norm " + fixed_text(r.grad_norm, 3) + "  lr " +
               to_string(OptionValue(r.lr)) + "  " + speed + " tokens/s");
    if (r.skipped) {
      say("step " + std::to_string(r.step) + " skipped: no finite loss and gradient, it began in " +
          r.culprit);
    }
  }

  void evaluate(int64_t step) {
    const EvalReport e = trainer_->evaluate();
    summary_.metric = e.metric;
    Json line = Json::object();
    line.set("step", step).set("eval_loss", finite(e.loss));
    line.set("eval_" + summary_.metric_name, finite(e.metric));
    if (on_device(config_)) {
      line.set("device_peak_bytes", device_peak_bytes());
      line.set("device_planned_bytes", int64_t(trainer_->plan().total()));
    }
    metrics_->line(line.dump());
    std::string text = "step " + std::to_string(step) + "  eval_loss " + fixed_text(e.loss, 4) +
                       "  " + summary_.metric_name + " " + fixed_text(e.metric, 4);
    if (summary_.metric_name == "accuracy") {
      text += "  (chance " + fixed_text(summary_.chance, 4) + ", in-context floor " +
              fixed_text(summary_.floor, 4) + ")";
    }
    say(text);
    const double target = config_.train.stop_at;
    summary_.reached_target =
        target > 0 && (summary_.higher_is_better ? e.metric >= target : e.metric <= target);
  }

  void save() {
    Json extra = Json::object();
    extra.set("seconds", seconds()).set("metric", finite(summary_.metric));
    extra.set("config", to_toml(config_));
    save_checkpoint(checkpoints(), *trainer_, config_.train.keep_checkpoints, extra.dump());
  }

  std::string note(const StepReport& r) const {
    std::string text = "loss " + fixed_text(r.loss, 3);
    if (std::isfinite(summary_.metric)) {
      text += "  " + summary_.metric_name + " " + fixed_text(summary_.metric, 3);
    }
    if (r.skipped_so_far > 0) text += "  skipped " + std::to_string(r.skipped_so_far);
    return text;
  }

  void say(const std::string& text) {
    log_->line(text);
    if (progress_) progress_->line(text);
  }

  std::string checkpoints() const { return folder_ + "/checkpoints"; }
  double sitting() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  }
  double seconds() const { return seconds_before_ + sitting(); }

  const RunSettings& settings_;
  std::string folder_;
  Config config_;
  std::unique_ptr<TaskSource> source_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Journal> metrics_, log_;
  std::unique_ptr<Progress> progress_;
  RunSummary summary_;
  std::chrono::steady_clock::time_point started_;
  double seconds_before_ = 0;
  size_t resident_before_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace

RunSummary run_training(Config config, LayerFactory& factory, const RunSettings& settings) {
  try {
    return Run(config, factory, settings).run();
  } catch (const Error& e) {
    record_failure(config, settings.folder, e);
    throw;
  }
}

}  // namespace strata
