// CUDA devices that are none. The environment says what they are like:
//   STRATA_FAKE_DEVICES=2       how many there are
//   STRATA_FAKE_MIB=4096        memory of each
//   STRATA_FAKE_TAKEN=0         MiB of it that somebody else takes once a run has made its plan
//   STRATA_FAKE_FAILS="lost 0 40"   at the 40th wait of a process, cuda:0 is lost; "fault": a
//   kernel
//                               failed. As on a GPU, it shows at a wait and at everything after it.
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "core/tensor/device.h"

namespace strata {
namespace {

int64_t number(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::atoll(text) : otherwise;
}

class FakeDriver final : public DeviceDriver {
 public:
  explicit FakeDriver(int index) : DeviceDriver("cuda:" + std::to_string(index)) {
    const char* text = std::getenv("STRATA_FAKE_FAILS");
    std::istringstream in(text ? text : "");
    int where = 0;
    if (in >> how_ >> where >> when_ && where != index) when_ = 0;
  }

  std::string description() const override { return "a device that is none"; }
  DeviceFacts facts() const override { return {"Fake 1", "1.2.3", "13.1", "13.0"}; }
  size_t free_bytes() override {
    return (size_t(number("STRATA_FAKE_MIB", 4096)) << 20) - reserved_;
  }
  Stream stream() const override { return {}; }
  void upload(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { move(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override { std::memmove(to, from, bytes); }
  void clear(void* memory, size_t bytes) override { std::memset(memory, 0, bytes); }
  void wait() override {
    if (when_ == 0 || ++waits_ < when_) return;
    if (how_ == "lost") fail(ErrorKind::lost, "uncorrectable ECC error encountered");
    fail(ErrorKind::fault, "an illegal memory access was encountered");
  }

 protected:
  void* do_reserve(size_t bytes, const std::string& what) override {
    if (bytes + (size_t(number("STRATA_FAKE_TAKEN", 0)) << 20) > free_bytes())
      throw Error(what + ": device " + name() + " cannot provide " + std::to_string(bytes >> 20) +
                      " MiB of memory",
                  ErrorKind::resource);
    reserved_ += bytes;
    return std::memset(std::aligned_alloc(64, (bytes + 63) / 64 * 64), 0, bytes);
  }
  void do_release(void* memory, size_t bytes) override {
    std::free(memory);
    reserved_ -= bytes;
  }

 private:
  void move(void* to, const void* from, size_t bytes) {
    wait();
    std::memmove(to, from, bytes);
  }

  std::string how_;
  int64_t when_ = 0, waits_ = 0;
  size_t reserved_ = 0;
};

DeviceCount count() { return {int(number("STRATA_FAKE_DEVICES", 2)), "no fake device"}; }

std::unique_ptr<DeviceDriver> open(int index) {
  if (index >= count().count)
    throw Error("device cuda:" + std::to_string(index) + ": it is not there", ErrorKind::device);
  return std::make_unique<FakeDriver>(index);
}

const bool registered = register_device_library(DeviceKind::cuda, {&open, &count});

}  // namespace
}  // namespace strata
