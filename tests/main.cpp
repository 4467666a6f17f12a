// Runs the tests. A test case that ends without one assertion proves nothing, and so does a filter
// that no test case passes: both are failures.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>

#include "core/tensor/device.h"
#include "plugins/host/loader.h"
#include "tests/test_device.h"

strata::Device strata::test::test_device() {
  static const Device device = [] {
    const char* name = std::getenv("STRATA_TEST_DEVICE");
    const Device d = name ? parse_device(name) : Device{};
    if (d.kind == DeviceKind::cuda) load_cuda_library();
    return d;
  }();
  return device;
}

namespace {

int n_idle = 0;

class IdleTests final : public doctest::IReporter {
 public:
  explicit IdleTests(const doctest::ContextOptions&) {}
  void test_case_start(const doctest::TestCaseData& test) override { test_ = &test; }
  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    if (stats.numAssertsCurrentTest > 0 || stats.failure_flags != 0) return;
    ++n_idle;
    std::cerr << test_->m_file.c_str() << ":" << test_->m_line << ": the test case \""
              << test_->m_name << "\" ended without an assertion\n";
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    if (stats.numTestCasesPassingFilters > 0) return;
    ++n_idle;
    std::cerr << "no test case passes the filters (a comma in a name is written \\,)\n";
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  const doctest::TestCaseData* test_ = nullptr;
};

REGISTER_LISTENER("idle_tests", 1, IdleTests);

}  // namespace

int main(int argc, char** argv) {
  const int result = doctest::Context(argc, argv).run();
  return result != 0 ? result : n_idle > 0;
}
