#include "core/tensor/random.h"

#include <cmath>

namespace strata {

std::array<uint32_t, 4> philox(uint64_t counter_lo, uint64_t counter_hi, uint64_t key) {
  std::array<uint32_t, 4> c{uint32_t(counter_lo), uint32_t(counter_lo >> 32), uint32_t(counter_hi),
                            uint32_t(counter_hi >> 32)};
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ c[3] ^ k1,
         uint32_t(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

uint64_t stream_of(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (unsigned char byte : name) hash = (hash ^ byte) * 0x100000001b3u;
  return hash;
}

uint32_t Random::next_u32() {
  if (used_ == 4) {
    block_ = philox(index_++, stream_, seed_);
    used_ = 0;
  }
  return block_[used_++];
}

uint64_t Random::next_u64() {
  const uint64_t low = next_u32();
  return low | uint64_t{next_u32()} << 32;
}

double Random::uniform() { return double(next_u64() >> 11) * 0x1.0p-53; }

double Random::normal() {
  const double u = 1.0 - uniform();  // in (0, 1]: the logarithm is finite
  const double v = uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
}

uint64_t Random::below(uint64_t n) {
  unsigned __int128 product = (unsigned __int128)next_u64() * n;
  if (uint64_t(product) < n) {
    const uint64_t threshold = -n % n;
    while (uint64_t(product) < threshold) product = (unsigned __int128)next_u64() * n;
  }
  return uint64_t(product >> 64);
}

}  // namespace strata
