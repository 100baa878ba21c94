#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/comm/transport.h"

namespace trireme {

enum class ReduceOp { sum, maximum };

// A live Group: the ranks of one tensor, data or pipeline group, or of the whole run. Calls are
// collective: every member makes the same calls in the same order, from one thread. `index` counts
// within the group. Sums are taken in the order of the group's ranks, so every member and every
// transport gets the same bits.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int size() const = 0;
  virtual int index() const = 0;

  // In place. The memory must stay untouched until the work is waited for; other work may be done
  // meanwhile.
  virtual std::unique_ptr<Work> begin_all_reduce(std::span<float> data, ReduceOp op) = 0;
  void all_reduce(std::span<float> data, ReduceOp op) { begin_all_reduce(data, op)->wait(); }
  // all.size() == size() * mine.size(); member i's part lies at i * mine.size().
  virtual void all_gather(std::span<const float> mine, std::span<float> all) = 0;
  // Returns when all members have called it.
  virtual void barrier() = 0;
};

// A communicator over point-to-point messages. `channel` must differ between groups that share
// ranks; the transport must outlive it.
std::unique_ptr<Communicator> make_message_communicator(Transport& transport,
                                                        std::vector<Rank> ranks, int channel);

// Tags: the top byte tells what a message is for, so that groups, pipeline and reductions never
// meet.
enum class TagSpace : uint8_t {
  collective = 1,
  pipeline = 2,
  gradient = 3,
  tied = 4,
  checkpoint = 5
};
constexpr uint64_t make_tag(TagSpace space, uint64_t rest) {
  return (static_cast<uint64_t>(space) << 56) | (rest & ((uint64_t{1} << 56) - 1));
}
constexpr TagSpace space_of(uint64_t tag) {
  return static_cast<TagSpace>(tag >> 56);
}

}  // namespace trireme
