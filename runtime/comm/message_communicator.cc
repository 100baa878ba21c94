#include <algorithm>
#include <array>
#include <memory>

#include "planner/plan/layout.h"
#include "runtime/comm/communicator.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// Up to this many floats a member sends everything to everybody: one hop instead of two. Between
// two members that moves no more bytes either, so they always do.
constexpr size_t kDirectFloats = 16384;

// Memory for `size` floats that nobody has touched: zeroing megabytes that are overwritten at once
// shows in a step.
std::shared_ptr<float[]> unwritten(size_t size) {
  return std::make_shared_for_overwrite<float[]>(size);
}

std::shared_ptr<float[]> copy_of(std::span<const float> data) {
  auto copy = unwritten(data.size());
  std::copy(data.begin(), data.end(), copy.get());
  return copy;
}

class DoneWork final : public Work {
 public:
  void wait() override {}
};

void combine(std::span<float> into, const float* other, ReduceOp op) {
  if (op == ReduceOp::sum) {
    for (size_t i = 0; i < into.size(); ++i) into[i] += other[i];
  } else {
    for (size_t i = 0; i < into.size(); ++i) into[i] = std::max(into[i], other[i]);
  }
}

// into = parts[0] op parts[1] op ..., in that order; `into` may be one of the parts. Block by
// block, so that every part is read once and the sums stay in the nearest cache.
void combine_all(std::span<float> into, const std::vector<const float*>& parts, ReduceOp op) {
  std::array<float, 1024> block;
  for (size_t first = 0; first < into.size(); first += block.size()) {
    const std::span<float> sums(block.data(), std::min(block.size(), into.size() - first));
    std::copy_n(parts[0] + first, sums.size(), sums.begin());
    for (size_t i = 1; i < parts.size(); ++i) combine(sums, parts[i] + first, op);
    std::copy(sums.begin(), sums.end(), into.begin() + static_cast<std::ptrdiff_t>(first));
  }
}

class MessageCommunicator final : public Communicator {
 public:
  MessageCommunicator(Transport& transport, std::vector<Rank> ranks, int channel)
      : transport_(transport), ranks_(std::move(ranks)), channel_(channel) {
    const auto self = std::find(ranks_.begin(), ranks_.end(), transport.rank());
    TRIREME_CHECK(self != ranks_.end());
    index_ = static_cast<int>(self - ranks_.begin());
  }

  int size() const override { return static_cast<int>(ranks_.size()); }
  int index() const override { return index_; }

  std::unique_ptr<Work> begin_all_reduce(std::span<float> data, ReduceOp op) override;

  void all_gather(std::span<const float> mine, std::span<float> all) override {
    TRIREME_CHECK(all.size() == mine.size() * ranks_.size());
    if (mine.empty()) return;
    const uint64_t tag = next_tag();
    const auto copy = copy_of(mine);
    std::vector<std::unique_ptr<Work>> arriving;
    for (int member = 0; member < size(); ++member) {
      const auto part = all.subspan(member * mine.size(), mine.size());
      if (member == index_) {
        std::copy(mine.begin(), mine.end(), part.begin());
      } else {
        arriving.push_back(transport_.receive(ranks_[member], tag, part));
        transport_.send(ranks_[member], tag, {copy.get(), mine.size()}, copy);
      }
    }
    for (auto& work : arriving) work->wait();
  }

  void barrier() override {
    float token = 0;
    all_reduce({&token, 1}, ReduceOp::sum);
  }

 private:
  friend class AllReduce;
  // Each collective of a group has its number, the same on every member.
  uint64_t next_tag() {
    return make_tag(TagSpace::collective,
                    (static_cast<uint64_t>(channel_) << 40) | (calls_++ & 0xFFFFFFFFFFU));
  }

  Transport& transport_;
  std::vector<Rank> ranks_;
  int channel_;
  int index_ = 0;
  uint64_t calls_ = 0;
};

// Two hops: every member gets its own part of the data from all others and reduces it in the order
// of the ranks, then sends the result to all. That moves 2(n-1)/n of the data per member, as a ring
// does, in 2 steps instead of 2(n-1), and every element is summed in the same order. Short data
// goes in one hop: everybody gets all and reduces all.
class AllReduce final : public Work {
 public:
  AllReduce(MessageCommunicator& group, std::span<float> data, ReduceOp op)
      : group_(group),
        data_(data),
        op_(op),
        direct_(group.size() == 2 || data.size() <= kDirectFloats),
        scatter_tag_(group.next_tag()),
        gather_tag_(direct_ ? 0 : group.next_tag()) {
    const auto mine = part(group_.index_);
    const auto copy = copy_of(data_);
    for (int member = 0; member < group_.size(); ++member) {
      received_.emplace_back();
      if (member == group_.index_) continue;
      received_.back() = unwritten(mine.size());
      arriving_.push_back(group_.transport_.receive(group_.ranks_[member], scatter_tag_,
                                                    {received_.back().get(), mine.size()}));
      const auto theirs = part(member);
      const size_t first = theirs.data() - data_.data();
      group_.transport_.send(group_.ranks_[member], scatter_tag_,
                             {copy.get() + first, theirs.size()}, copy);
    }
  }

  void wait() override {
    for (auto& work : arriving_) work->wait();
    reduce_own_part();
    if (!direct_) spread();
  }

 private:
  std::span<float> part(int member) const {
    if (direct_) return data_;
    const auto range = split_evenly(static_cast<int>(data_.size()), group_.size(), member);
    return data_.subspan(range.begin, range.size());
  }

  void reduce_own_part() {
    const auto mine = part(group_.index_);
    std::vector<const float*> parts;
    for (const auto& part : received_) parts.push_back(part.get());
    parts[group_.index_] = mine.data();
    combine_all(mine, parts, op_);
  }

  void spread() {
    std::vector<std::unique_ptr<Work>> arriving;
    const auto mine = part(group_.index_);
    const auto copy = copy_of(mine);
    for (int member = 0; member < group_.size(); ++member) {
      if (member == group_.index_) continue;
      arriving.push_back(
          group_.transport_.receive(group_.ranks_[member], gather_tag_, part(member)));
      group_.transport_.send(group_.ranks_[member], gather_tag_, {copy.get(), mine.size()}, copy);
    }
    for (auto& work : arriving) work->wait();
  }

  MessageCommunicator& group_;
  std::span<float> data_;
  ReduceOp op_;
  bool direct_;
  uint64_t scatter_tag_;
  uint64_t gather_tag_;
  std::vector<std::shared_ptr<float[]>> received_;  // by member; nothing at our own index
  std::vector<std::unique_ptr<Work>> arriving_;
};

std::unique_ptr<Work> MessageCommunicator::begin_all_reduce(std::span<float> data, ReduceOp op) {
  if (size() == 1 || data.empty()) return std::make_unique<DoneWork>();
  return std::make_unique<AllReduce>(*this, data, op);
}

}  // namespace

std::unique_ptr<Communicator> make_message_communicator(Transport& transport,
                                                        std::vector<Rank> ranks, int channel) {
  return std::make_unique<MessageCommunicator>(transport, std::move(ranks), channel);
}

}  // namespace trireme
