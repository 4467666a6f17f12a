#include "plugins/kit/kit.h"

#include <algorithm>
#include <cstdio>

#include "core/tensor/device.h"
#include "plugins/kit/checks.h"
#include "plugins/kit/isolate.h"

namespace strata {

using namespace kit;

namespace kit {

CheckRow measured(std::string check, double error, double tolerance, std::string note) {
  // Written so that a not-a-number fails.
  return {std::move(check), error, tolerance,
          error <= tolerance ? CheckVerdict::ok : CheckVerdict::fail, std::move(note)};
}

CheckRow failed(std::string check, std::string note) {
  return {std::move(check), 0, 0, CheckVerdict::fail, std::move(note)};
}

CheckRow skipped(std::string check, std::string note) {
  return {std::move(check), 0, 0, CheckVerdict::skipped, std::move(note)};
}

}  // namespace kit

namespace {

struct Group {
  const char* name;  // of the row when the group throws or crashes
  Rows (*run)(const LayerChoice&);
};

constexpr Group kGroups[] = {
    {"planning", check_planning},
    {"values", check_values},
    {"shapes", check_shapes},
    {"bad shapes", check_bad_shapes},
    {"bad options", check_bad_options},
    {"gradients", check_gradients},
    {"uses", check_uses},
    {"state", check_state},
    {"documents", check_documents},
    {"numbers", check_numbers},
    {"int8", check_quantize},
};

// The smallest width that the layer's constructor accepts; its words when it accepts none.
int64_t fitting_width(LayerChoice choice, std::string& refusal) {
  for (choice.d_model = 8; choice.d_model <= 1024; choice.d_model *= 2) {
    try {
      Bed bed(choice, DType::f64);
      return choice.d_model;
    } catch (const Error& e) {
      refusal = e.what();
    }
  }
  return 0;
}

}  // namespace

std::vector<CheckRow> check_layer(LayerFactory& factory, const std::string& symbol,
                                  const KitOptions& options,
                                  const std::function<void(const CheckRow&)>& on_row) {
  factory.use_device(options.device);
  driver_of(options.device);  // refused here, in its own words
  LayerChoice choice{&factory, symbol, options.d_model, factory.preset(symbol), options.device};
  for (const auto& [key, value] : options.set) choice.options[key] = value;
  std::vector<CheckRow> rows;
  auto report = [&](const CheckRow& row) {
    rows.push_back(row);
    if (on_row) on_row(row);
  };
  const bool on_device = options.device.kind != DeviceKind::cpu;
  std::string refusal;
  // A constructor that crashes must not take the kit with it.
  const auto trial = [&] {
    if (choice.d_model == 0)
      fitting_width(choice, refusal);
    else
      Bed(choice, DType::f64);
    return Rows{};
  };
  if (options.isolate && !on_device)
    for (const CheckRow& row : run_in_child("assembly", trial)) {
      if (row.note.find("crashes") != 0 && row.note.find("does not end") != 0) continue;
      report(row);
      return rows;
    }
  if (choice.d_model == 0) choice.d_model = fitting_width(choice, refusal);
  if (choice.d_model == 0) throw Error(refusal);
  Bed(choice, DType::f64);  // loads the library here, so that children have it

  bool runs = true;
  for (const Group& group : kGroups) {
    if (!runs) {
      report(skipped(group.name, "needs the missing kernel"));
      continue;
    }
    const auto run = [&] { return group.run(choice); };
    for (const CheckRow& row : options.isolate && !on_device ? run_in_child(group.name, run)
                                                             : run_caught(group.name, run))
      report(row);
    runs = rows.back().check != kKernels || rows.back().verdict == CheckVerdict::ok;
  }
  if (on_device) {
    for (const CheckRow& row : run_caught("bf16", [&] { return check_half(choice); })) report(row);
    for (const CheckRow& row : run_caught("devices agree", [&] { return check_devices(choice); }))
      report(row);
  } else {
    report(skipped("bf16", "not promised on the CPU"));
    report(skipped("cuda", "run with --device cuda on a machine with a GPU"));
  }
  return rows;
}

std::string format_row(const CheckRow& row) {
  constexpr const char* kVerdicts[] = {"ok     ", "FAIL   ", "skipped"};
  char text[160];
  if (row.verdict == CheckVerdict::skipped || (row.error == 0 && row.tolerance == 0))
    std::snprintf(text, sizeof text, "%s  %-28s %-27s", kVerdicts[int(row.verdict)],
                  row.check.c_str(), "");
  else
    std::snprintf(text, sizeof text, "%s  %-28s %9.1e  (at most %7.0e)",
                  kVerdicts[int(row.verdict)], row.check.c_str(), row.error, row.tolerance);
  std::string line = text;
  if (!row.note.empty()) line += "  " + row.note;
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

bool all_passed(const std::vector<CheckRow>& rows) {
  return std::any_of(rows.begin(), rows.end(),
                     [](const CheckRow& r) { return r.verdict == CheckVerdict::ok; }) &&
         std::none_of(rows.begin(), rows.end(),
                      [](const CheckRow& r) { return r.verdict == CheckVerdict::fail; });
}

}  // namespace strata
