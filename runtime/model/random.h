#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace trireme {

// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3" (SC11): 128 random bits as a pure function of a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A stream of numbers named by a seed and a name; number `index` of it is the same wherever and in
// whatever order it is asked for, which is what makes initial weights and sample order independent
// of the layout. Thread-safe.
class NamedRandom {
 public:
  NamedRandom(uint64_t seed, std::string_view name);
  uint64_t bits(uint64_t index) const;
  // Standard normal numbers `index` and following, in `count` floats (Box-Muller).
  void normals(uint64_t index, int count, float* to) const;

 private:
  std::array<uint32_t, 4> block(uint64_t number) const;
  std::array<uint32_t, 2> key_;
  uint64_t name_;
};

}  // namespace trireme
