#include "experiments/ablate/study.h"

#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <list>
#include <ostream>
#include <thread>

#include "core/io/file.h"
#include "core/io/toml.h"
#include "experiments/ablate/child.h"
#include "experiments/report/page.h"
#include "experiments/run/run_folder.h"

namespace strata {
namespace {

constexpr auto kPollEvery = std::chrono::milliseconds(20);
constexpr double kProgressSeconds = 0.5;  // between looks at the children's metrics

std::string folder_of(const StudySettings& settings, const StudyRun& run) {
  return settings.out + "/runs/" + run.folder;
}

bool finished(const RunSummary& summary, const StudyRun& run) {
  return summary.config_hash == config_hash(run.config) &&
         (summary.outcome == "ok" || summary.outcome == "diverged");
}

// The child's own summary, or one made from how the process ended.
RunSummary concluded(const StudyRun& run, const std::string& folder, const ChildEnd& end) {
  auto own = read_summary(folder);
  RunSummary s = own.value_or(RunSummary{});
  if (!own) {
    s.metric = std::numeric_limits<double>::quiet_NaN();
    s.steps = last_step(folder);
    s.seconds = end.seconds;
  }
  s.config_hash = config_hash(run.config);
  s.peak_bytes = std::max(s.peak_bytes, end.peak_bytes);
  const std::string word = outcome_of(end);
  const bool told =
      own && own->outcome != "ok" && (word == "failed" || word == "refused" || word == "resources");
  if (!told) {
    if (word == "ok" && !own) {
      s.outcome = "crash";
      s.message = "ended without a result";
    } else if (word != "ok") {
      s.outcome = word;
      s.message =
          end.signalled || end.timed_out ? describe(end) : last_words(folder + "/output.txt");
      if (s.message.empty()) s.message = describe(end);
    }
  }
  if (s.outcome == "resources" && s.message.find("memory") != std::string::npos) s.outcome = "oom";
  return s;
}

std::string line_of(const StudyPlan& plan, const StudyRun& run, const RunSummary& s,
                    size_t name_width) {
  std::string name = plan.variants[run.variant].name;
  name += std::string(name_width - std::min(name_width, display_width(name)), ' ');
  std::string text = s.outcome == "ok" ? "  ✓ " : "  ✗ ";
  text += name + "  seed " + std::to_string(run.seed) + "  ";
  if (s.outcome == "ok")
    text += s.metric_name + " " + fixed_text(s.metric, 4);
  else
    text += s.outcome + (s.message.empty() ? "" : ": " + s.message);
  return text + "  " + with_commas(s.steps) + " steps  " + duration_text(s.seconds);
}

std::string settings_text(const Variant& variant) {
  std::string text;
  for (const Override& item : variant.overrides) {
    if (item.key == "model.pattern") continue;
    text += (text.empty() ? "" : ", ") + item.key + " = " + item.value;
  }
  return text;
}

// The runs under way, with what is known of all of them.
class Scheduler {
 public:
  Scheduler(const StudyPlan& plan, const StudySettings& settings)
      : plan_(plan),
        settings_(settings),
        pool_(settings.devices.empty() ? std::vector<StudyDevice>{{.device = {},
                                                                   .slots = settings.jobs,
                                                                   .description = "CPU"}}
                                       : settings.devices,
              settings.jobs),
        steps_(plan.runs.size(), 0) {
    for (const StudyRun& run : plan.runs) bytes_.push_back(run.bytes);
    for (const Variant& variant : plan.variants)
      name_width_ = std::max(name_width_, display_width(variant.name));
  }

  StudyOutcome run() {
    StudyOutcome out;
    make_folders(settings_.out + "/runs");
    int64_t total = 0, done = 0;
    for (size_t i = 0; i < plan_.runs.size(); ++i) {
      const StudyRun& run = plan_.runs[i];
      total += run.config.train.steps;
      const auto summary = read_summary(folder_of(settings_, run));
      if (summary && finished(*summary, run)) {
        steps_[i] = run.config.train.steps;
        done += steps_[i];
        ++out.reused;
      } else {
        waiting_.push_back(i);
      }
    }
    Progress progress(*settings_.messages, settings_.style, "study", total, done);
    if (out.reused)
      progress.line("  " + std::to_string(out.reused) + " of " + std::to_string(plan_.runs.size()) +
                    " runs were finished before");
    out.page = report();
    loop(progress, out);
    progress.clear();
    out.result = collect_study(plan_, settings_);
    out.page = write_report(out.result, settings_.out);
    return out;
  }

 private:
  struct Active {
    size_t index, place;  // of the run, of its device in the pool
    int64_t bytes;        // that it was given
    Child child;
  };

  void loop(Progress& progress, StudyOutcome& out) {
    while (!active_.empty() || (!waiting_.empty() && !out.interrupted)) {
      if (const int number = settings_.interrupted ? settings_.interrupted() : 0;
          number && !out.interrupted) {
        out.interrupted = true;
        progress.line("  stopping: the runs under way write a checkpoint");
        for (Active& each : active_) each.child.signal(number);
      }
      if (!out.interrupted) start_what_fits();
      std::this_thread::sleep_for(kPollEvery);
      for (auto it = active_.begin(); it != active_.end();)
        if (const auto end = it->child.poll()) {
          finish(*it, *end, progress, out.interrupted);
          pool_.end(it->place, it->bytes);
          it = active_.erase(it);
        } else {
          ++it;
        }
      if (!out.interrupted) give_up_without_device(progress);
      show(progress);
    }
  }

  // In their order; a run that finds no room lets smaller ones pass.
  void start_what_fits() {
    for (auto it = waiting_.begin(); it != waiting_.end();)
      if (const auto place = pool_.find(plan_.runs[*it].devices, bytes_[*it])) {
        start(*it, *place);
        it = waiting_.erase(it);
      } else {
        ++it;
      }
  }

  // Runs whose devices are all lost have a row that says so; the next sitting tries them again.
  void give_up_without_device(Progress& progress) {
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const StudyRun& run = plan_.runs[*it];
      if (pool_.serves(run.devices)) {
        ++it;
        continue;
      }
      const std::string folder = folder_of(settings_, run);
      make_folders(folder);
      RunSummary summary;
      summary.outcome = "not run";
      summary.message = pool_.losses(run.devices);
      summary.metric = std::numeric_limits<double>::quiet_NaN();
      summary.steps = last_step(folder);
      summary.config_hash = config_hash(run.config);
      write_summary(folder, summary);
      progress.line(line_of(plan_, run, summary, name_width_));
      it = waiting_.erase(it);
    }
  }

  void start(size_t index, size_t place) {
    const StudyRun& run = plan_.runs[index];
    const std::string folder = folder_of(settings_, run);
    make_folders(folder);
    std::remove((folder + "/result.json").c_str());
    const Device device = pool_.device(place);
    Config config = run.config;
    if (device.kind != DeviceKind::cpu) config.model.device = to_string(device);
    write_file(folder + "/config.toml", to_toml(config));
    active_.push_back({index, place, bytes_[index],
                       Child(settings_.command(run, folder, device), folder + "/output.txt",
                             settings_.timeout_seconds)});
    pool_.start(place, bytes_[index]);
  }

  void finish(const Active& ended, const ChildEnd& end, Progress& progress, bool stopping) {
    const StudyRun& run = plan_.runs[ended.index];
    const std::string folder = folder_of(settings_, run);
    const RunSummary summary = concluded(run, folder, end);
    write_summary(folder, summary);
    if (stopping && summary.outcome != "ok") return;
    const bool unusable = summary.outcome == "device";
    if (unusable || summary.outcome == "lost") pool_.lose(ended.place);
    // A run that never had its device goes to another one. One that found no memory beside others
    // has a device to itself the next time.
    const bool crowded = summary.outcome == "oom" && pool_.running(ended.place) > 1 &&
                         bytes_[ended.index] < pool_.free_bytes(ended.place);
    if (crowded) bytes_[ended.index] = pool_.free_bytes(ended.place);
    if (crowded || (unusable && pool_.serves(run.devices))) {
      waiting_.insert(waiting_.begin(), ended.index);
      progress.line("  " + plan_.variants[run.variant].name + "  seed " + std::to_string(run.seed) +
                    " is tried again: " + summary.message);
      return;
    }
    steps_[ended.index] = run.config.train.steps;
    progress.line(line_of(plan_, run, summary, name_width_));
    report();
  }

  void show(Progress& progress) {
    const auto now = std::chrono::steady_clock::now();
    if (std::chrono::duration<double>(now - shown_).count() < kProgressSeconds) return;
    shown_ = now;
    for (const Active& each : active_)
      steps_[each.index] = last_step(folder_of(settings_, plan_.runs[each.index]));
    int64_t done = 0;
    for (int64_t steps : steps_) done += steps;
    const size_t left = waiting_.size() + active_.size();
    progress.update(done, std::to_string(plan_.runs.size() - left) + " of " +
                              std::to_string(plan_.runs.size()) + " runs");
  }

  std::string report() { return write_report(collect_study(plan_, settings_), settings_.out); }

  const StudyPlan& plan_;
  const StudySettings& settings_;
  DevicePool pool_;
  std::list<size_t> waiting_;  // in order
  std::list<Active> active_;
  std::vector<int64_t> bytes_;  // that each run is to be given
  std::vector<int64_t> steps_;  // made so far, by run; all of them where a run has ended
  std::chrono::steady_clock::time_point shown_{};
  size_t name_width_ = 0;
};

}  // namespace

StudyOutcome run_study(const StudyPlan& plan, const StudySettings& settings) {
  return Scheduler(plan, settings).run();
}

StudyResult collect_study(const StudyPlan& plan, const StudySettings& settings) {
  StudyResult study;
  const AblateConfig& ablate = plan.base.ablate;
  study.title = ablate.title.empty() ? "Study of layer patterns" : ablate.title;
  if (!ablate.claim.empty()) study.claims = {ablate.claim};
  study.target = plan.base.train.stop_at;
  study.record = settings.record;
  for (size_t v = 0; v < plan.variants.size(); ++v) {
    VariantResult row;
    row.name = plan.variants[v].name;
    row.expect = plan.variants[v].expect;
    row.settings = settings_text(plan.variants[v]);
    row.is_baseline = v == plan.baseline;
    for (const StudyRun& run : plan.runs) {
      if (run.variant != v) continue;
      if (row.pattern.empty()) {
        row.pattern = run.config.model.pattern;
        if (settings.draw) row.cells = settings.draw(run.config);
      }
      RunResult result;
      result.seed = uint64_t(run.seed);
      const std::string folder = folder_of(settings, run);
      const auto s = read_summary(folder);
      if (!s) {
        result.outcome = "pending";
        result.metric = std::numeric_limits<double>::quiet_NaN();
        result.steps = last_step(folder);
      } else {
        result.outcome = s->outcome;
        result.message = s->message;
        result.metric = s->metric;
        result.steps = s->steps;
        result.seconds = s->seconds;
        result.tokens_per_second = s->tokens_per_second;
        result.memory_bytes = s->used_bytes;
        result.device = s->device;
        result.reached_target = s->reached_target;
        if (s->parameters) row.parameters = s->parameters;
        if (!s->metric_name.empty()) {
          study.metric = s->metric_name;
          study.higher_is_better = s->higher_is_better;
          study.chance = s->chance;
          study.floor = s->floor;
        }
      }
      if (!study.metric.empty()) result.curve = read_curve(folder, study.metric);
      row.runs.push_back(std::move(result));
    }
    study.variants.push_back(std::move(row));
  }
  summarize_study(study);
  return study;
}

}  // namespace strata
