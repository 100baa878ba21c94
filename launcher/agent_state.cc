#include "launcher/agent_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <utility>

#include "planner/plan/protocol.h"
#include "topology/base/error.h"

namespace trireme {

using Json = nlohmann::json;

// The whole behaviour. Rows of one phase are tried from top to bottom, again and again until none
// applies.
struct AgentTable {
  using State = AgentState;
  struct Row {
    AgentPhase from;
    AgentPhase to;
    bool (State::*fact)() const;
    void (State::*act)();
  };
  using P = AgentPhase;
  static constexpr Row kRows[] = {
      {P::waiting, P::orphaned, &State::controller_gone, &State::blame_controller},
      {P::waiting, P::gone, &State::may_leave, &State::leave_clean},
      {P::waiting, P::running, &State::launch_asked, &State::spawn_ranks},

      {P::running, P::orphaned, &State::controller_gone, &State::blame_controller},
      {P::running, P::gone, &State::may_leave, &State::leave_clean},
      {P::running, P::ending, &State::abort_asked, &State::nothing},

      {P::ending, P::orphaned, &State::controller_gone, &State::blame_controller},
      {P::ending, P::gone, &State::may_leave, &State::leave_clean},
      {P::ending, P::killing, &State::grace_over, &State::kill_ranks},

      {P::killing, P::orphaned, &State::controller_gone, &State::blame_controller},
      {P::killing, P::gone, &State::may_leave, &State::leave_clean},

      {P::orphaned, P::gone, &State::every_rank_gone, &State::leave_orphaned},
      {P::orphaned, P::gone, &State::out_of_time, &State::leave_orphaned},
  };
};

void AgentState::follow_table() {
  const auto applies = [this](const AgentTable::Row& row) {
    return row.from == phase_ && (this->*row.fact)();
  };
  for (;;) {
    const auto* row =
        std::find_if(std::begin(AgentTable::kRows), std::end(AgentTable::kRows), applies);
    if (row == std::end(AgentTable::kRows)) {
      return;
    }
    phase_ = row->to;
    (this->*row->act)();
  }
}

std::vector<AgentAction> AgentState::handle(const AgentEvent& event, double now) {
  now_ = now;
  std::visit([this](const auto& e) { on(e); }, event);
  follow_table();
  return std::exchange(actions_, {});
}

void AgentState::on(const ControllerSaid& event) {
  controller_heard_ = now_;
  const Json& message = event.message;
  const std::string type = message.at("type");
  if (type == "launch") {
    order_ = message;
  } else if (type == "tell") {
    actions_.emplace_back(SendToRank{message.at("rank"), message.at("message")});
  } else if (type == "stop") {
    for (const RankSeat& rank : ranks_) {
      actions_.emplace_back(SendToRank{rank.rank, {{"type", "stop"}}});
    }
  } else if (type == "terminate") {
    signal_ranks(SIGTERM);
  } else if (type == "abort") {
    const double at = now_ + message.at("grace_seconds").get<double>();
    kill_at_ = std::min(at, kill_at_.value_or(at));
  } else if (type == "leave") {
    leave_asked_ = true;
  }
}

void AgentState::on(const ControllerLost& event) {
  controller_lost_ = event.why;
}

void AgentState::on(const RankSpawned& event) {
  seat(event.rank).last_heard = now_;
  tell_controller({{"type", "spawned"}, {"rank", event.rank}, {"pid", event.pid}});
}

void AgentState::on(const SpawnFailed& event) {
  const Json failed = {{"type", "failed"}, {"kind", "failed"}, {"message", event.why}};
  seat(event.rank).alive = false;
  tell_controller({{"type", "rank"}, {"rank", event.rank}, {"message", failed}});
  tell_controller({{"type", "ended"},
                   {"rank", event.rank},
                   {"status", to_json(ExitStatus{.code = 127})},
                   {"silent_seconds", 0},
                   {"doing", nullptr},
                   {"log_tail", Json::array()}});
}

void AgentState::on(const RankSaid& event) {
  RankSeat& rank = seat(event.rank);
  rank.last_heard = now_;
  rank.spoke = true;
  if (event.message.at("type") != "alive") {
    tell_controller({{"type", "rank"}, {"rank", event.rank}, {"message", event.message}});
  }
}

void AgentState::on(const RankEnded& event) {
  RankSeat& rank = seat(event.rank);
  rank.alive = false;
  tell_controller({{"type", "ended"},
                   {"rank", event.rank},
                   {"status", to_json(event.status)},
                   {"silent_seconds", rank.spoke ? now_ - rank.last_heard : 0.0},
                   {"doing", event.doing},
                   {"log_tail", event.log_tail}});
}

void AgentState::on(const AgentTick&) {
  if (now_ - controller_heard_ >= kLeaseSeconds && controller_lost_.empty()) {
    controller_lost_ = fmt::format("it said nothing for {:.0f} s", now_ - controller_heard_);
  }
  watch_silence();
  if (now_ >= next_beat_) {
    next_beat_ = now_ + kHeartbeatSeconds;
    tell_controller({{"type", "alive"}});
  }
}

void AgentState::watch_silence() {
  // What the ranks said while this agent was itself stopped has not been read yet.
  const double missed = std::max(0.0, now_ - last_tick_ - kHeartbeatSeconds);
  last_tick_ = now_;
  for (RankSeat& rank : ranks_) {
    rank.last_heard += missed;
    const double silent = now_ - rank.last_heard;
    if (rank.alive && silent >= (rank.spoke ? kDeadSeconds : kFirstWordSeconds) &&
        !std::exchange(rank.reported_silent, true)) {
      actions_.emplace_back(ReportSilence{rank.rank, silent});
    }
  }
}

bool AgentState::every_rank_gone() const {
  return std::none_of(ranks_.begin(), ranks_.end(), [](const RankSeat& r) { return r.alive; });
}

void AgentState::spawn_ranks() {
  for (const int rank : order_.at("ranks").get<std::vector<int>>()) {
    ranks_.push_back({.rank = rank, .last_heard = now_});
    actions_.emplace_back(SpawnRank{rank, order_.at("run_directory"), order_.at("resume")});
  }
}

void AgentState::kill_ranks() {
  signal_ranks(SIGKILL);
}

void AgentState::blame_controller() {
  BlameController blame{controller_lost_, {}};
  for (const RankSeat& rank : ranks_) {
    if (rank.alive) {
      blame.killed.push_back(rank.rank);
    }
  }
  kill_ranks();
  actions_.emplace_back(std::move(blame));
  deadline_ = now_ + kOrphanSeconds;
}

void AgentState::leave_clean() {
  actions_.emplace_back(LeaveRun{0});
}

void AgentState::leave_orphaned() {
  actions_.emplace_back(LeaveRun{1});
}

void AgentState::signal_ranks(int signal) {
  for (const RankSeat& rank : ranks_) {
    if (rank.alive) {
      actions_.emplace_back(SignalRank{rank.rank, signal});
    }
  }
}

AgentState::RankSeat& AgentState::seat(int rank) {
  const auto found =
      std::find_if(ranks_.begin(), ranks_.end(), [&](const RankSeat& r) { return r.rank == rank; });
  if (found == ranks_.end()) {
    throw Error(ErrorKind::failed, fmt::format("r{} is not a rank of this agent", rank));
  }
  return *found;
}

void AgentState::tell_controller(Json message) {
  actions_.emplace_back(SendToController{std::move(message)});
}

}  // namespace trireme
