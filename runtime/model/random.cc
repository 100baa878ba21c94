#include "runtime/model/random.h"

#include <cmath>

namespace trireme {
namespace {

// FNV-1a: the name only has to land on its own stream.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

// A uniform number in (0, 1), never 0, so that its logarithm is finite.
double open_unit(uint32_t bits) {
  return (static_cast<double>(bits) + 0.5) / 4294967296.0;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return c;
}

NamedRandom::NamedRandom(uint64_t seed, std::string_view name)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      name_(hash_name(name)) {}

std::array<uint32_t, 4> NamedRandom::block(uint64_t number) const {
  return philox({static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32),
                 static_cast<uint32_t>(name_), static_cast<uint32_t>(name_ >> 32)},
                key_);
}

uint64_t NamedRandom::bits(uint64_t index) const {
  const auto words = block(index);
  return (static_cast<uint64_t>(words[0]) << 32) | words[1];
}

void NamedRandom::normals(uint64_t index, int count, float* to) const {
  constexpr double kTwoPi = 6.283185307179586;
  int done = 0;
  while (done < count) {
    const uint64_t at = index + static_cast<uint64_t>(done);
    const auto words = block(at / 4);
    float four[4];
    for (size_t pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2.0 * std::log(open_unit(words[2 * pair])));
      const double angle = kTwoPi * open_unit(words[2 * pair + 1]);
      four[2 * pair] = static_cast<float>(radius * std::cos(angle));
      four[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
    for (auto lane = static_cast<int>(at % 4); lane < 4 && done < count; ++lane)
      to[done++] = four[lane];
  }
}

}  // namespace trireme
