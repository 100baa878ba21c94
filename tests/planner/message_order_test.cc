#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>
#include <deque>
#include <map>
#include <random>

#include "planner/checker.h"
#include "planner/schedules/generators.h"
#include "planner/schedules/schedules.h"
#include "tests/planner/random_schedule.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using Channel = std::pair<int, int>;

Verdict check(const Schedule& schedule, SendMode sends, std::optional<int> buffer = std::nullopt) {
  return check_schedule(schedule, {.sends = sends, .buffer = buffer, .memory_limit = std::nullopt});
}

bool legal(const Schedule& schedule, SendMode sends, std::optional<int> buffer = std::nullopt) {
  return check(schedule, sends, buffer).legal;
}

TEST(MessageOrder, BlockingSendsLetOnlyNaiveAndGpipeThrough) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 12; ++m) {
      SCOPED_TRACE(testing::Message() << "p" << p << " m" << m);
      EXPECT_TRUE(legal(naive_schedule(p, m), SendMode::blocking));
      EXPECT_TRUE(legal(gpipe_schedule(p, m), SendMode::blocking));
      // With one rank there are no messages, with one micro-batch there is nothing to alternate.
      const bool trivial = p == 1 || m == 1;
      EXPECT_EQ(legal(one_forward_one_backward_schedule(p, m), SendMode::blocking), trivial);
      for (int v = 1; v <= 3; ++v) {
        const Schedule schedule = interleaved_schedule(p, m, v, legal_groups(p, m).front());
        EXPECT_EQ(legal(schedule, SendMode::blocking), trivial) << "v" << v;
      }
    }
  }
}

// Rank 0's second send meets rank 1's first send back.
TEST(MessageOrder, TheCircleOfBlockingSendsIsDrawn) {
  const Verdict verdict = check(one_forward_one_backward_schedule(2, 2), SendMode::blocking);
  EXPECT_EQ(verdict.reason,
            "2 ranks wait for each other: rank 0 at >0F1 waits for <0F1 of rank 1, rank 1 at >1B0 "
            "waits for <1B0 of rank 0 (> sends and < receives an op's output)");
  EXPECT_EQ(verdict.grid,
            "rank   0         0F0    >0F0     0F1  !>0F1!    <1B0     0B0    <1B1     0B1   waits "
            "for <0F1 of rank 1\n"
            "rank   1        <0F0     1F0     1B0  [>1B0]    <0F1     1F1     1B1    >1B1   waits "
            "for <1B0 of rank 0\n");
  EXPECT_EQ(verdict.first_wrong, (OpPosition{0, 1}));
}

TEST(MessageOrder, BatchesOfNeighboursPairUpIn1f1b) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 12; ++m) {
      EXPECT_TRUE(legal(naive_schedule(p, m), SendMode::batched));
      EXPECT_TRUE(legal(gpipe_schedule(p, m), SendMode::batched));
      EXPECT_TRUE(legal(one_forward_one_backward_schedule(p, m), SendMode::batched))
          << "p" << p << " m" << m;
    }
  }
}

// Interleaved ranks do the same kind of op at the same time, so that all send backwards while
// nobody has posted the receive.
TEST(MessageOrder, BatchesOfInterleavedRanksDoNotPairUp) {
  EXPECT_TRUE(legal(interleaved_schedule(4, 4, 2, 4), SendMode::batched));
  const Verdict verdict = check(interleaved_schedule(4, 8, 2, 4), SendMode::batched);
  EXPECT_THAT(verdict.reason, HasSubstr("4 ranks wait for each other"));
  EXPECT_THAT(verdict.grid, HasSubstr("[>7B3<2F4]"));
}

TEST(MessageOrder, OneBufferedMessagePerChannelIsEnoughFor1f1b) {
  for (int p = 2; p <= 8; ++p) {
    for (int m = 2; m <= 12; ++m) {
      EXPECT_FALSE(legal(one_forward_one_backward_schedule(p, m), SendMode::buffered, 0));
      EXPECT_TRUE(legal(one_forward_one_backward_schedule(p, m), SendMode::buffered, 1));
      EXPECT_TRUE(legal(one_forward_one_backward_schedule(p, m), SendMode::buffered));
    }
  }
}

TEST(MessageOrder, NamesTheFirstMessageTakenOutOfOrder) {
  Schedule schedule = gpipe_schedule(2, 3);
  std::swap(schedule.ranks[1][1], schedule.ranks[1][2]);  // rank 1: F0, F2, F1
  EXPECT_TRUE(check_schedule(schedule).legal);
  for (const SendMode mode : {SendMode::buffered, SendMode::batched, SendMode::blocking}) {
    const Verdict verdict = check(schedule, mode);
    EXPECT_EQ(
        verdict.reason,
        "message 1 of the channel from rank 0 to rank 1 is the output of 0F1 (op 1 there), but "
        "1F2 (op 1 here) takes that of 0F2: messages are received in the order sent");
    EXPECT_EQ(verdict.first_wrong, (OpPosition{1, 1}));
  }
}

// With two ranks in a loop, forwards and backwards share the two channels. Groups of two leave a
// last group of one here, whose forward of chunk 0 overtakes a backward.
TEST(MessageOrder, TwoRanksInALoopMayConfuseForwardsAndBackwards) {
  const Schedule schedule = interleaved_schedule(2, 3, 2, 2);
  EXPECT_TRUE(check_schedule(schedule).legal);
  const Verdict verdict = check(schedule, SendMode::buffered);
  EXPECT_EQ(verdict.reason,
            "message 3 of the channel from rank 1 to rank 0 is the output of 3B1 (op 5 there), but "
            "2F2 (op 6 here) takes that of 1F2: messages are received in the order sent");
}

// An independent model: programs as lists of messages, channels as queues, tried again and again
// until nothing moves.
class Trial {
 public:
  Trial(const Schedule& schedule, SendMode mode, size_t room)
      : schedule_(schedule), mode_(mode), room_(room), batches_(schedule.ranks.size()) {
    for (size_t r = 0; r < schedule.ranks.size(); ++r) write_out(static_cast<int>(r));
  }

  bool everybody_finishes() {
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& [channel, sends] : sends_) moved = move_on(channel) || moved;
      for (auto& rank : batches_) {
        while (!rank.empty() && rank.front() == 0) {
          rank.pop_front();
          moved = true;
        }
      }
    }
    for (const auto& rank : batches_) {
      if (!rank.empty()) return false;
    }
    return true;
  }

 private:
  struct End {
    Op output;
    size_t batch;  // among its rank's
  };

  void write_out(int rank) {
    const std::vector<Op>& program = schedule_.ranks[size_t(rank)];
    std::deque<int>& batches = batches_[size_t(rank)];
    batches.push_back(0);
    for (size_t at = 0; at < program.size();) {
      const size_t width = program[at].overlaps_next ? 2 : 1;
      for (size_t i = at; i < at + width; ++i) add(rank, program[i], false);
      batches.push_back(0);
      for (size_t i = at; i < at + width; ++i) add(rank, program[i], true);
      at += width;
    }
    counts_.push_back(batches.size());
  }

  void add(int rank, const Op& op, bool sends) {
    if (op.kind == OpKind::backward_weight) return;
    const bool forward = op.kind == OpKind::forward;
    const int other = op.stage + (forward == sends ? 1 : -1);
    if (other < 0 || other >= static_cast<int>(schedule_.stages.size())) return;
    const int peer = schedule_.stages[size_t(other)].rank;
    if (peer == rank) return;
    const OpKind kind = forward ? OpKind::forward : OpKind::backward_input;
    std::deque<int>& batches = batches_[size_t(rank)];
    if (mode_ != SendMode::batched) batches.push_back(0);
    ++batches.back();
    const End end{{kind, false, sends ? op.stage : other, op.micro_batch}, batches.size() - 1};
    (sends ? sends_[{rank, peer}] : receives_[{peer, rank}]).push_back(end);
  }

  size_t current(int rank) const { return counts_[size_t(rank)] - batches_[size_t(rank)].size(); }

  bool move_on(const Channel& channel) {
    auto& sends = sends_[channel];
    auto& receives = receives_[channel];
    std::deque<Op>& queue = queues_[channel];
    bool moved = false;
    const auto posted = [&](const std::deque<End>& ends, int rank) {
      return !ends.empty() && ends.front().batch == current(rank) &&
             !batches_[size_t(rank)].empty();
    };
    if (posted(sends, channel.first) &&
        (queue.size() < room_ || (queue.empty() && posted(receives, channel.second) &&
                                  receives.front().output == sends.front().output))) {
      queue.push_back(sends.front().output);
      sends.pop_front();
      --batches_[size_t(channel.first)].front();
      moved = true;
    }
    if (posted(receives, channel.second) && !queue.empty() &&
        queue.front() == receives.front().output) {
      queue.pop_front();
      receives.pop_front();
      --batches_[size_t(channel.second)].front();
      moved = true;
    }
    return moved;
  }

  const Schedule& schedule_;
  SendMode mode_;
  size_t room_;
  std::vector<std::deque<int>> batches_;  // by rank: messages still open in each batch
  std::vector<size_t> counts_;            // batches of each rank at first
  std::map<Channel, std::deque<End>> sends_, receives_;
  std::map<Channel, std::deque<Op>> queues_;
};

TEST(MessageOrder, AgreesWithTryingOnRandomPrograms) {
  std::mt19937 random(31);
  std::map<std::pair<SendMode, int>, int> legal_count;
  constexpr int kTrials = 3000;
  for (int trial = 0; trial < kTrials; ++trial) {
    const int ranks = 1 + static_cast<int>(random() % 4),
              chunks = 1 + static_cast<int>(random() % 2);
    const auto kind = static_cast<PlacementKind>(trial % 3);
    Schedule schedule =
        random_legal_schedule(random_placement(kind, ranks, chunks, random), ranks,
                              1 + static_cast<int>(random() % 3), trial % 4 == 0, random);
    if (trial % 5 == 0) pair_at_random(schedule, 3, random);
    for (const auto& [mode, room] : {std::pair(SendMode::blocking, 0),
                                     {SendMode::batched, 0},
                                     {SendMode::buffered, 0},
                                     {SendMode::buffered, 1},
                                     {SendMode::buffered, 2},
                                     {SendMode::buffered, INT_MAX}}) {
      const Verdict verdict = check(schedule, mode, room);
      ASSERT_EQ(verdict.legal, Trial(schedule, mode, size_t(room)).everybody_finishes())
          << "mode " << int(mode) << " room " << room << "\n"
          << to_csv(schedule) << verdict.reason;
      ASSERT_EQ(verdict.legal, !verdict.first_wrong.has_value());
      legal_count[{mode, room}] += verdict.legal ? 1 : 0;
    }
  }
  for (const auto& [mode, count] : legal_count) {
    EXPECT_GT(count, kTrials / 20);
    EXPECT_LT(count, kTrials * 19 / 20);
  }
}

}  // namespace
}  // namespace trireme
