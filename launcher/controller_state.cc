#include "launcher/controller_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <utility>

#include "launcher/agent_state.h"
#include "planner/plan/run_directory.h"
#include "topology/base/check.h"
#include "topology/base/error.h"

namespace trireme {

using Json = nlohmann::json;

// The whole behaviour. Rows of one phase are tried from top to bottom, again and again until none
// applies; a fact that has no row in a phase means nothing there.
struct ControllerTable {
  using State = ControllerState;
  struct Row {
    ControllerPhase from;
    ControllerPhase to;
    bool (State::*fact)() const;
    void (State::*act)();
  };
  using P = ControllerPhase;
  static constexpr Row kRows[] = {
      {P::starting, P::aborting, &State::something_failed, &State::abort},
      {P::starting, P::leaving, &State::stop_asked, &State::dismiss},
      {P::starting, P::aborting, &State::out_of_time, &State::blame_missing_agents},
      {P::starting, P::connecting, &State::some_agent_connected, &State::nothing},

      {P::connecting, P::aborting, &State::something_failed, &State::abort},
      {P::connecting, P::leaving, &State::stop_asked, &State::dismiss},
      {P::connecting, P::aborting, &State::out_of_time, &State::blame_missing_agents},
      {P::connecting, P::launching, &State::every_agent_connected, &State::launch},

      {P::launching, P::aborting, &State::something_failed, &State::abort},
      {P::launching, P::stopping, &State::stop_asked, &State::relay_stop},
      {P::launching, P::leaving, &State::every_rank_gone, &State::dismiss},
      {P::launching, P::training, &State::every_rank_started, &State::begin_training},

      {P::training, P::aborting, &State::something_failed, &State::abort},
      {P::training, P::stopping, &State::stop_asked, &State::relay_stop},
      {P::training, P::leaving, &State::every_rank_gone, &State::dismiss},

      {P::stopping, P::aborting, &State::something_failed, &State::abort},
      {P::stopping, P::leaving, &State::every_rank_gone, &State::dismiss},
      {P::stopping, P::terminating, &State::stop_asked, &State::terminate},

      {P::terminating, P::leaving, &State::every_rank_gone, &State::dismiss},
      {P::terminating, P::aborting, &State::stop_asked, &State::kill},
      {P::terminating, P::aborting, &State::out_of_time, &State::kill},

      {P::aborting, P::leaving, &State::causes_known, &State::dismiss},
      {P::aborting, P::leaving, &State::out_of_time, &State::dismiss},
      {P::aborting, P::aborting, &State::stop_asked, &State::kill},

      {P::leaving, P::finished, &State::every_agent_gone, &State::finish},
      {P::leaving, P::finished, &State::out_of_time, &State::finish},
  };
};

void ControllerState::follow_table() {
  const auto applies = [this](const ControllerTable::Row& row) {
    return row.from == phase_ && (this->*row.fact)();
  };
  for (;;) {
    const auto* row =
        std::find_if(std::begin(ControllerTable::kRows), std::end(ControllerTable::kRows), applies);
    if (row == std::end(ControllerTable::kRows)) {
      return;
    }
    if (row->fact == &ControllerState::stop_asked) {
      --stops_pending_;
    }
    if (row->to != row->from) {
      phase_ = row->to;
      deadline_.reset();
      record({{"event", "phase"}, {"phase", name_of(phase_)}});
    }
    (this->*row->act)();
  }
}

const char* name_of(ControllerPhase phase) {
  static constexpr const char* kNames[] = {"starting", "connecting", "launching",
                                           "training", "stopping",   "terminating",
                                           "aborting", "leaving",    "finished"};
  return kNames[static_cast<int>(phase)];
}

ControllerSetup controller_setup(const Plan& plan, const std::string& run_directory,
                                 const std::string& resume) {
  ControllerSetup setup{.nodes = {},
                        .rank_names = {},
                        .node_of_rank = {},
                        .run_directory = run_directory,
                        .resume = resume,
                        .predicted_bubble = plan.prediction.bubble_fraction};
  for (size_t r = 0; r < plan.placement.size(); ++r) {
    const std::string& node = plan.placement[r].node;
    auto place = std::find(setup.nodes.begin(), setup.nodes.end(), node);
    if (place == setup.nodes.end()) {
      place = setup.nodes.insert(place, node);
    }
    setup.node_of_rank.push_back(static_cast<int>(place - setup.nodes.begin()));
    setup.rank_names.push_back(rank_name(plan, Rank(static_cast<int>(r))));
  }
  return setup;
}

namespace {

std::vector<std::string> nodes_by_rank(const ControllerSetup& setup) {
  std::vector<std::string> nodes;
  for (const int node : setup.node_of_rank) {
    nodes.push_back(setup.nodes[static_cast<size_t>(node)]);
  }
  return nodes;
}

}  // namespace

ControllerState::ControllerState(ControllerSetup setup, double now)
    : setup_(std::move(setup)),
      agents_(setup_.nodes.size()),
      ranks_(setup_.rank_names.size()),
      book_(static_cast<int>(setup_.rank_names.size()), setup_.predicted_bubble),
      postmortem_(setup_.rank_names, nodes_by_rank(setup_)),
      now_(now),
      last_tick_(now),
      next_beat_(now),
      deadline_(now + kConnectSeconds) {}

std::vector<ControllerAction> ControllerState::handle(const ControllerEvent& event, double now) {
  note_standstill(now);
  now_ = now;
  std::visit([this](const auto& e) { on(e); }, event);
  follow_table();
  return std::exchange(actions_, {});
}

// Agents take a controller that says nothing for that long for gone, and end their ranks.
void ControllerState::note_standstill(double now) {
  if (launched_ && now - now_ >= AgentState::kLeaseSeconds) {
    postmortem_.controller_stood_still(now - now_);
  }
}

bool ControllerState::some_agent_connected() const {
  return std::any_of(agents_.begin(), agents_.end(), [](const Agent& a) { return a.connected; });
}

bool ControllerState::every_agent_connected() const {
  return std::all_of(agents_.begin(), agents_.end(), [](const Agent& a) { return a.connected; });
}

bool ControllerState::every_rank_started() const {
  return std::all_of(ranks_.begin(), ranks_.end(), [](const RankSeat& r) { return r.started; });
}

bool ControllerState::something_failed() const {
  return postmortem_.something_failed();
}

bool ControllerState::every_rank_gone() const {
  return !launched_ ||
         std::all_of(ranks_.begin(), ranks_.end(), [](const RankSeat& r) { return r.gone; });
}

// An agent's connection breaks before its process can be asked how it ended.
bool ControllerState::causes_known() const {
  const auto open_question = [](const Agent& a) { return a.lost && !a.process_ended; };
  return every_rank_gone() &&
         (now_ >= grace_end_ || std::none_of(agents_.begin(), agents_.end(), open_question));
}

bool ControllerState::every_agent_gone() const {
  return std::all_of(agents_.begin(), agents_.end(),
                     [](const Agent& a) { return a.lost || !a.connected; });
}

bool ControllerState::stop_asked() const {
  return stops_pending_ > 0;
}

bool ControllerState::out_of_time() const {
  return deadline_ && now_ >= *deadline_;
}

void ControllerState::nothing() {
  deadline_ = now_ + kConnectSeconds;
}

void ControllerState::blame_missing_agents() {
  for (size_t n = 0; n < agents_.size(); ++n) {
    if (!agents_[n].connected) {
      postmortem_.agent_failed(setup_.nodes[n],
                               fmt::format("did not connect within {:.0f} s", kConnectSeconds));
    }
  }
  abort();
}

void ControllerState::launch() {
  launched_ = true;
  std::vector<std::vector<int>> ranks_of_node(agents_.size());
  for (size_t r = 0; r < ranks_.size(); ++r) {
    ranks_of_node[static_cast<size_t>(setup_.node_of_rank[r])].push_back(static_cast<int>(r));
  }
  for (size_t n = 0; n < agents_.size(); ++n) {
    const Json message = {{"type", "launch"},
                          {"ranks", ranks_of_node[n]},
                          {"run_directory", setup_.run_directory},
                          {"resume", setup_.resume}};
    actions_.emplace_back(SendToAgent{static_cast<int>(n), message});
  }
}

void ControllerState::begin_training() {
  say(fmt::format("all {} ranks have entered their first step", ranks_.size()));
}

void ControllerState::relay_stop() {
  send_all({{"type", "stop"}});
  say(fmt::format(
      "{}: finishing the current step and saving a checkpoint; once more ends the ranks "
      "at once, without a checkpoint",
      signal_name(stop_signal_)));
}

void ControllerState::terminate() {
  hard_stop_ = true;
  deadline_ = now_ + kTerminateSeconds;
  send_all({{"type", "terminate"}});
  say(
      fmt::format("sent SIGTERM to every rank; SIGKILL follows in {:.0f} s, or at once when asked "
                  "again",
                  kTerminateSeconds));
}

void ControllerState::abort() {
  grace_end_ = now_ + kGraceSeconds;
  deadline_ = now_ + kAbortSeconds;
  send_all({{"type", "abort"}, {"grace_seconds", kGraceSeconds}});
  const Failure first = postmortem_.verdict({setup_.run_directory});
  say(fmt::format("{} {}; ending the run", first.subject, first.cause));
}

void ControllerState::kill() {
  grace_end_ = now_;
  deadline_ = now_ + kAbortSeconds;
  send_all({{"type", "abort"}, {"grace_seconds", 0}});
  say("sent SIGKILL to every rank");
}

void ControllerState::dismiss() {
  deadline_ = now_ + kLeaveSeconds;
  send_all({{"type", "leave"}});
  steps_done(book_.flush());
  tell_of_ranks_left();
  const bool stopped_early =
      std::any_of(ranks_.begin(), ranks_.end(), [](const RankSeat& r) { return r.stopped; });
  outcome_.stopped = stop_signal_ != 0 && (stopped_early || hard_stop_ || !launched_);
  if (postmortem_.something_failed() && !hard_stop_) {
    outcome_.failure = postmortem_.verdict({setup_.run_directory});
    outcome_.exit_code =
        exit_code(outcome_.failure->bad_input ? ErrorKind::bad_input : ErrorKind::failed);
    Json failure = to_json(*outcome_.failure);
    failure["event"] = "failure";
    record(std::move(failure));
  } else if (outcome_.stopped) {
    outcome_.exit_code = 128 + stop_signal_;
  }
}

// They may hold a device, and the next run would find it taken.
void ControllerState::tell_of_ranks_left() {
  for (size_t r = 0; launched_ && r < ranks_.size(); ++r) {
    if (ranks_[r].gone || ranks_[r].pid == 0) {
      continue;
    }
    const std::string& node = setup_.nodes[static_cast<size_t>(setup_.node_of_rank[r])];
    say(fmt::format("{} could not be ended: process {} on {} is still there", setup_.rank_names[r],
                    ranks_[r].pid, node));
    Json left = rank_event("rank_left", static_cast<int>(r));
    left["pid"] = ranks_[r].pid;
    record(std::move(left));
  }
}

void ControllerState::finish() {
  record({{"event", "finished"}, {"exit_code", outcome_.exit_code}});
  actions_.emplace_back(Finish{});
}

RunOutcome ControllerState::outcome() const {
  TRIREME_CHECK(phase_ == ControllerPhase::finished);
  return outcome_;
}

void ControllerState::send_all(const Json& message) {
  for (size_t n = 0; n < agents_.size(); ++n) {
    if (agents_[n].connected && !agents_[n].lost) {
      actions_.emplace_back(SendToAgent{static_cast<int>(n), message});
    }
  }
}

void ControllerState::answer(const Store::Waiter& waiter, const char* field,
                             const std::string& text) {
  const int node = setup_.node_of_rank[static_cast<size_t>(waiter.rank.value)];
  const Json value = {{"type", "value"}, {"id", waiter.id}, {field, text}};
  actions_.emplace_back(
      SendToAgent{node, {{"type", "tell"}, {"rank", waiter.rank.value}, {"message", value}}});
}

void ControllerState::record(Json event) {
  actions_.emplace_back(RecordEvent{std::move(event)});
}

Json ControllerState::rank_event(const char* what, int rank) const {
  const auto index = static_cast<size_t>(rank);
  return {{"event", what},
          {"rank", rank},
          {"name", setup_.rank_names[index]},
          {"node", setup_.nodes[static_cast<size_t>(setup_.node_of_rank[index])]}};
}

void ControllerState::say(std::string text) {
  actions_.emplace_back(Say{std::move(text)});
}

void ControllerState::steps_done(const std::vector<Json>& steps) {
  for (const Json& step : steps) {
    actions_.emplace_back(StepDone{step});
  }
}

}  // namespace trireme
