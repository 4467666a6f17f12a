// Any bytes as the files of a run folder that a later command reads: metrics.jsonl, result.json and
// record.json. What cannot be understood is passed over or refused with an Error.
#include "experiments/run/journal.h"
#include "experiments/run/record.h"
#include "experiments/run/run.h"
#include "experiments/run/run_folder.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const strata::test::FuzzFolder folder;
  const std::string metrics = folder.write("metrics.jsonl", data, size);
  folder.write("result.json", data, size);
  folder.write("record.json", data, size);
  strata::read_summary(folder.path());
  strata::read_curve(folder.path(), "loss");
  strata::last_step(folder.path());
  strata::cut_metrics(metrics, 3);
  try {
    strata::check_plugins(folder.path(), {});
  } catch (const strata::Error&) {
  }
  return 0;
}
