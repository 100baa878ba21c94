#include "planner/message_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>

#include "planner/standstill.h"
#include "topology/base/check.h"

namespace trireme {
namespace {

// One end of a message, as its rank's program has it.
struct End {
  uint32_t channel = 0;
  uint32_t number = 0;    // among the ends of its kind on this channel
  uint32_t position = 0;  // of the op that makes the output or takes it
  bool sends = false;
};

// An op or overlapped pair, or the ends that are posted together.
struct Step {
  uint32_t first = 0;  // position of the op, or index of the first end
  uint32_t count = 0;
  bool op = false;
};

// Where an end stands in its rank's program.
struct Spot {
  uint32_t step = 0;
  uint32_t end = 0;
};

// An ordered pair of ranks and its messages by number.
struct Channel {
  size_t from = 0, to = 0;
  std::vector<Spot> sends = {}, receives = {};
  size_t posted_sends = 0, posted_receives = 0;  // so far in a walk
};

struct Lowered {
  std::vector<std::vector<End>> ends;    // by rank
  std::vector<std::vector<Step>> steps;  // by rank
  std::vector<Channel> channels;
};

// Programs with their sends and receives written out.
class Lowering {
 public:
  Lowering(const Schedule& schedule, SendMode mode) : schedule_(schedule), mode_(mode) {
    result_.ends.resize(schedule.ranks.size());
    result_.steps.resize(schedule.ranks.size());
    lay_channels();
    for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) lower(rank);
  }

  Lowered take() { return std::move(result_); }

 private:
  // Edge 2s leads from stage s to s+1, edge 2s+1 to s-1.
  void lay_channels() {
    std::map<std::pair<int, int>, int> numbers;
    const auto lay = [&](int from, int to) {
      const auto [at, is_new] = numbers.emplace(std::pair(from, to), result_.channels.size());
      if (is_new) {
        result_.channels.push_back({static_cast<size_t>(from), static_cast<size_t>(to)});
      }
      return at->second;
    };
    channel_of_edge_.assign(2 * schedule_.stages.size(), -1);
    for (size_t stage = 1; stage < schedule_.stages.size(); ++stage) {
      const int before = schedule_.stages[stage - 1].rank, here = schedule_.stages[stage].rank;
      if (before == here) continue;
      channel_of_edge_[2 * (stage - 1)] = lay(before, here);
      channel_of_edge_[2 * stage + 1] = lay(here, before);
    }
  }

  void lower(size_t rank) {
    const std::vector<Op>& program = schedule_.ranks[rank];
    closed_ = 0;
    size_t width = 0;
    for (size_t at = 0; at < program.size(); at += width) {
      width = program[at].overlaps_next ? 2 : 1;
      for (size_t i = at; i < at + width; ++i) add_end(false, rank, i);
      close_batch(rank);
      result_.steps[rank].push_back(
          {static_cast<uint32_t>(at), static_cast<uint32_t>(width), true});
      for (size_t i = at; i < at + width; ++i) add_end(true, rank, i);
    }
    close_batch(rank);
  }

  // The send of an op's output, or the receive of its input, where another rank has the other end.
  void add_end(bool sends, size_t rank, size_t position) {
    const Op& op = schedule_.ranks[rank][position];
    if (op.kind == OpKind::backward_weight) return;
    const bool forward = op.kind == OpKind::forward;
    const int maker = sends ? op.stage : op.stage + (forward ? -1 : 1);
    if (maker < 0 || maker >= static_cast<int>(schedule_.stages.size())) return;
    const int number = channel_of_edge_[2 * static_cast<size_t>(maker) + (forward ? 0 : 1)];
    if (number < 0) return;
    Channel& channel = result_.channels[static_cast<size_t>(number)];
    std::vector<Spot>& spots = sends ? channel.sends : channel.receives;
    std::vector<End>& ends = result_.ends[rank];
    const auto step = static_cast<uint32_t>(result_.steps[rank].size());
    ends.push_back({static_cast<uint32_t>(number), static_cast<uint32_t>(spots.size()),
                    static_cast<uint32_t>(position), sends});
    spots.push_back({step, static_cast<uint32_t>(ends.size() - 1)});
    if (mode_ != SendMode::batched) close_batch(rank);
  }

  // Makes a step of the ends that no step has yet.
  void close_batch(size_t rank) {
    const auto end = static_cast<uint32_t>(result_.ends[rank].size());
    if (end > closed_) result_.steps[rank].push_back({closed_, end - closed_, false});
    closed_ = end;
  }

  const Schedule& schedule_;
  SendMode mode_;
  std::vector<int> channel_of_edge_;  // -1 within a rank
  uint32_t closed_ = 0;               // ends of the rank at hand that are part of a step
  Lowered result_;
};

// Where an end's output comes from: of a forward or not, stage and micro-batch.
std::tuple<bool, int, int> output_of(const Schedule& schedule, size_t rank, const End& end) {
  const Op& op = schedule.ranks[rank][end.position];
  const bool forward = op.kind == OpKind::forward;
  return {forward, end.sends ? op.stage : op.stage + (forward ? -1 : 1), op.micro_batch};
}

// The op that makes the output which this end sends or takes; the ends of its channel must be in
// order.
const Op& maker_of(const Schedule& schedule, const Lowered& lowered, const End& end) {
  const Channel& channel = lowered.channels[end.channel];
  const End& sent = lowered.ends[channel.from][channel.sends[end.number].end];
  return schedule.ranks[channel.from][sent.position];
}

Verdict wrong_order(const Schedule& schedule, const Lowered& lowered, const Channel& channel,
                    size_t number) {
  const End& taken = lowered.ends[channel.to][channel.receives[number].end];
  const auto sent = [&](const Spot& spot) -> const End& {
    return lowered.ends[channel.from][spot.end];
  };
  const auto wanted =
      std::find_if(channel.sends.begin(), channel.sends.end(), [&](const Spot& spot) {
        return output_of(schedule, channel.from, sent(spot)) ==
               output_of(schedule, channel.to, taken);
      });
  const auto maker = [&](const Spot& spot) {
    return to_string(schedule.ranks[channel.from][sent(spot).position]);
  };
  const Spot& first = channel.sends[number];
  return {false,
          fmt::format("message {} of the channel from rank {} to rank {} is the output of {} (op "
                      "{} there), but {} (op {} here) takes that of {}: messages are received in "
                      "the order sent",
                      number, channel.from, channel.to, maker(first), sent(first).position,
                      to_string(schedule.ranks[channel.to][taken.position]), taken.position,
                      maker(*wanted)),
          OpPosition{static_cast<int>(channel.to), taken.position}, ""};
}

std::optional<Verdict> check_order(const Schedule& schedule, const Lowered& lowered) {
  for (const Channel& channel : lowered.channels) {
    TRIREME_CHECK(channel.sends.size() == channel.receives.size());
    for (size_t i = 0; i < channel.sends.size(); ++i) {
      const End& sent = lowered.ends[channel.from][channel.sends[i].end];
      const End& taken = lowered.ends[channel.to][channel.receives[i].end];
      if (output_of(schedule, channel.from, sent) != output_of(schedule, channel.to, taken)) {
        return wrong_order(schedule, lowered, channel, i);
      }
    }
  }
  return std::nullopt;
}

// Every rank goes through its steps; a step of messages ends when each of them has its counterpart
// posted or, of a send, room in the buffer.
class Walk {
 public:
  Walk(Lowered& lowered, size_t buffer)
      : lowered_(lowered), buffer_(buffer), at_(lowered.steps.size(), 0) {
    for (size_t rank = at_.size(); rank > 0; --rank) runnable_.push_back(rank - 1);
    posted_.resize(at_.size(), false);
  }

  // Whether everybody gets to the end.
  bool run() {
    while (!runnable_.empty()) {
      const size_t rank = runnable_.back();
      runnable_.pop_back();
      advance(rank);
    }
    for (size_t rank = 0; rank < at_.size(); ++rank) {
      if (at_[rank] < lowered_.steps[rank].size()) return false;
    }
    return true;
  }

  // The end that a rank is stuck at, or nullptr.
  const End* stuck_at(size_t rank) const {
    if (at_[rank] == lowered_.steps[rank].size()) return nullptr;
    const Step& step = lowered_.steps[rank][at_[rank]];
    const End* end = &lowered_.ends[rank][step.first];
    return std::find_if(end, end + step.count, [&](const End& e) { return !met(e); });
  }
  size_t at(size_t rank) const { return at_[rank]; }

 private:
  bool met(const End& end) const {
    const Channel& channel = lowered_.channels[end.channel];
    if (!end.sends) return channel.posted_sends > end.number;
    return channel.posted_receives > end.number || end.number - channel.posted_receives < buffer_;
  }

  void post(size_t rank, const Step& step) {
    for (size_t i = step.first; i < step.first + step.count; ++i) {
      const End& end = lowered_.ends[rank][i];
      Channel& channel = lowered_.channels[end.channel];
      ++(end.sends ? channel.posted_sends : channel.posted_receives);
      const size_t peer = end.sends ? channel.to : channel.from;
      if (posted_[peer]) runnable_.push_back(peer);
    }
    posted_[rank] = true;
  }

  void advance(size_t rank) {
    for (; at_[rank] < lowered_.steps[rank].size(); ++at_[rank]) {
      const Step& step = lowered_.steps[rank][at_[rank]];
      if (step.op) continue;
      if (!posted_[rank]) post(rank, step);
      const auto* ends = &lowered_.ends[rank][step.first];
      if (!std::all_of(ends, ends + step.count, [&](const End& e) { return met(e); })) return;
      posted_[rank] = false;
    }
  }

  Lowered& lowered_;
  size_t buffer_;
  std::vector<size_t> at_;
  std::vector<bool> posted_;  // by rank: its step's messages are posted, and it may be waiting
  std::vector<size_t> runnable_;
};

// "0F1" for an op, ">0F1" where its output is sent, "<0F1" where it is received; what goes together
// in one.
std::string name_of(const Schedule& schedule, const Lowered& lowered, size_t rank, size_t index) {
  const Step& step = lowered.steps[rank][index];
  std::string name;
  for (size_t i = step.first; i < step.first + step.count; ++i) {
    if (step.op) {
      name += fmt::format("{}{}", name.empty() ? "" : "&", to_string(schedule.ranks[rank][i]));
    } else {
      const End& end = lowered.ends[rank][i];
      name +=
          fmt::format("{}{}", end.sends ? '>' : '<', to_string(maker_of(schedule, lowered, end)));
    }
  }
  return name;
}

Verdict explain_stop(const Schedule& schedule, const Lowered& lowered, const Walk& walk) {
  std::vector<StuckRank> ranks(schedule.ranks.size());
  std::vector<size_t> steps;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    StuckRank& stuck = ranks[rank];
    steps.push_back(lowered.steps[rank].size());
    stuck.at = walk.at(rank);
    const End* end = walk.stuck_at(rank);
    if (end == nullptr) continue;
    const Channel& channel = lowered.channels[end->channel];
    stuck.stuck = true;
    const std::string output = to_string(maker_of(schedule, lowered, *end));
    stuck.waiting = fmt::format("{}{}", end->sends ? '>' : '<', output);
    stuck.needed = fmt::format("{}{}", end->sends ? '<' : '>', output);
    stuck.for_rank = end->sends ? channel.to : channel.from;
    stuck.for_step = (end->sends ? channel.receives : channel.sends)[end->number].step;
  }
  const std::vector<size_t> cycle = wait_cycle(ranks);
  const size_t culprit = culprit_of(ranks, cycle);
  const auto name = [&](size_t rank, size_t step) {
    return name_of(schedule, lowered, rank, step);
  };
  return {false,
          fmt::format("{} ranks wait for each other: {} (> sends and < receives an op's output)",
                      cycle.size(), describe_cycle(ranks, cycle)),
          OpPosition{static_cast<int>(culprit), walk.stuck_at(culprit)->position},
          draw_standstill(ranks, steps, name, culprit)};
}

}  // namespace

std::optional<Verdict> check_messages(const Schedule& schedule, const CheckOptions& options) {
  if (options.sends == SendMode::asynchronous) return std::nullopt;
  Lowered lowered = Lowering(schedule, options.sends).take();
  if (auto verdict = check_order(schedule, lowered)) return verdict;
  size_t buffer = 0;
  if (options.sends == SendMode::buffered) {
    buffer = options.buffer ? static_cast<size_t>(std::max(0, *options.buffer)) : SIZE_MAX;
  }
  Walk walk(lowered, buffer);
  if (walk.run()) return std::nullopt;
  return explain_stop(schedule, lowered, walk);
}

}  // namespace trireme
