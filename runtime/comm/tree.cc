#include "runtime/comm/tree.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "runtime/comm/communicator.h"

namespace trireme {
namespace {

// Messages of one sender and tag keep their order, so every call may use the same two.
constexpr uint64_t kChannel = uint64_t{255} << 40;
const uint64_t kUp = make_tag(TagSpace::collective, kChannel);
const uint64_t kDown = make_tag(TagSpace::collective, kChannel | 1);

// Doubles travel in pairs of floats, bit by bit.
void send(Transport& transport, Rank to, uint64_t tag, std::span<const double> values) {
  const auto copy = std::make_shared<std::vector<float>>(2 * values.size());
  std::memcpy(copy->data(), values.data(), values.size_bytes());
  transport.send(to, tag, *copy, copy);
}

std::vector<double> receive(Transport& transport, Rank from, uint64_t tag, size_t count) {
  std::vector<float> words(2 * count);
  transport.receive(from, tag, words)->wait();
  std::vector<double> values(count);
  std::memcpy(values.data(), words.data(), count * sizeof(double));
  return values;
}

}  // namespace

std::vector<Rank> tree_neighbours(Rank rank, int size) {
  std::vector<Rank> all;
  if (rank.value > 0) all.emplace_back((rank.value - 1) / 2);
  for (const int child : {2 * rank.value + 1, 2 * rank.value + 2}) {
    if (child < size) all.emplace_back(child);
  }
  return all;
}

void tree_maximum(Transport& transport, std::span<double> values) {
  const Rank self = transport.rank();
  const auto neighbours = tree_neighbours(self, transport.size());
  for (const Rank child : neighbours) {
    if (child.value < self.value) continue;
    const auto theirs = receive(transport, child, kUp, values.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::max(values[i], theirs[i]);
  }
  if (self.value > 0) {
    send(transport, neighbours.front(), kUp, values);
    const auto all = receive(transport, neighbours.front(), kDown, values.size());
    std::copy(all.begin(), all.end(), values.begin());
  }
  for (const Rank child : neighbours) {
    if (child.value > self.value) send(transport, child, kDown, values);
  }
}

}  // namespace trireme
