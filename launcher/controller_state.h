#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "launcher/postmortem.h"
#include "launcher/step_book.h"
#include "launcher/store.h"
#include "planner/plan/plan.h"

namespace trireme {

// The controller of one run as a pure state machine: events in, actions out, time an argument. It
// opens no socket, reads no clock, starts no process; launcher/controller.h connects it to real
// ones, a simulation to made-up ones.
//
// What it does in which phase is one table (controller_state.cc): from each phase, which fact leads
// to which next phase, and what is done on the way.
enum class ControllerPhase {
  starting,     // agents were started, none is here yet
  connecting,   // some agents are here
  launching,    // ranks are being started
  training,     // every rank has entered its first step
  stopping,     // asked to stop: the ranks finish their step and save
  terminating,  // asked again: the ranks were told to end by SIGTERM
  aborting,     // something failed: last words are collected, then every rank is killed
  leaving,      // no rank is left; the agents are leaving
  finished
};
const char* name_of(ControllerPhase phase);

struct ControllerSetup {
  std::vector<std::string> nodes;       // those that have ranks, in order of their first rank
  std::vector<std::string> rank_names;  // by rank
  std::vector<int> node_of_rank;        // index into nodes
  std::string run_directory;
  std::string resume;  // checkpoint directory; empty: from the start
  double predicted_bubble = 0;
};
ControllerSetup controller_setup(const Plan& plan, const std::string& run_directory,
                                 const std::string& resume);

// Events.
struct AgentConnected {
  int node = 0;
  int64_t pid = 0;
};
struct AgentLost {  // its connection ended
  int node = 0;
  std::string why;
};
struct AgentEnded {  // its process ended; only where the starter can see that
  int node = 0;
  ExitStatus status;
};
struct AgentSaid {
  int node = 0;
  nlohmann::json message;  // docs/launcher.md lists them
};
struct StopAsked {
  int signal = 0;
};
struct ControllerTick {};
using ControllerEvent =
    std::variant<AgentConnected, AgentLost, AgentEnded, AgentSaid, StopAsked, ControllerTick>;

// Actions.
struct SendToAgent {
  int node = 0;
  nlohmann::json message;
};
struct RecordEvent {  // a line of events.jsonl
  nlohmann::json event;
};
struct Say {  // to the person who watches
  std::string text;
};
struct StepDone {  // a line of metrics.jsonl
  nlohmann::json metrics;
};
struct Finish {};  // nothing is left to wait for
using ControllerAction = std::variant<SendToAgent, RecordEvent, Say, StepDone, Finish>;

struct RunOutcome {
  int exit_code = 0;
  std::optional<Failure> failure;
  bool stopped = false;    // ended early because it was asked to
  std::string checkpoint;  // the last durable one; empty: none
  int checkpoint_step = 0;
  nlohmann::json summary;  // what rank 0 said when it was done
};

class ControllerState {
 public:
  explicit ControllerState(ControllerSetup setup, double now);

  // Times are seconds of one monotonic clock. Throws when an agent's message lacks what it must
  // have; the caller then treats that agent as lost.
  std::vector<ControllerAction> handle(const ControllerEvent& event, double now);

  ControllerPhase phase() const { return phase_; }
  // Once finished.
  RunOutcome outcome() const;

  static constexpr double kConnectSeconds = 30;   // for every agent to arrive
  static constexpr double kGraceSeconds = 0.3;    // for last words, once something failed
  static constexpr double kAbortSeconds = 1.5;    // for every rank to be gone after that
  static constexpr double kTerminateSeconds = 5;  // between SIGTERM and SIGKILL
  static constexpr double kLeaveSeconds = 1;      // for agents to leave

 private:
  friend struct ControllerTable;
  struct Agent {
    bool connected = false;
    bool lost = false;
    bool suspected = false;
    bool process_ended = false;
    int64_t pid = 0;
    double last_heard = 0;
  };
  struct RankSeat {
    int64_t pid = 0;
    bool started = false;
    bool gone = false;
    bool stopped = false;
  };

  void on(const AgentConnected& event);
  void on(const AgentLost& event);
  void on(const AgentEnded& event);
  void on(const AgentSaid& event);
  void on(const StopAsked& event);
  void on(const ControllerTick& event);
  void rank_said(int rank, const nlohmann::json& message);
  void hear_rank(int rank, const nlohmann::json& message);
  void rank_set(int rank, const nlohmann::json& message);
  void rank_got(int rank, const nlohmann::json& message);
  void rank_ended(int rank, const nlohmann::json& message);
  void rank_done(int rank, const nlohmann::json& message);
  void checkpoint_saved(int rank, const nlohmann::json& message);
  void lose_agent(int node, const std::string& why);

  // Facts of the table.
  bool some_agent_connected() const;
  bool every_agent_connected() const;
  bool every_rank_started() const;
  bool something_failed() const;
  bool every_rank_gone() const;
  bool causes_known() const;
  bool every_agent_gone() const;
  bool stop_asked() const;
  bool out_of_time() const;

  // What the table does on the way.
  void nothing();
  void blame_missing_agents();
  void launch();
  void begin_training();
  void relay_stop();
  void terminate();
  void abort();
  void kill();
  void dismiss();
  void finish();

  void follow_table();
  void send_all(const nlohmann::json& message);
  void answer(const Store::Waiter& waiter, const char* field, const std::string& text);
  void record(nlohmann::json event);
  nlohmann::json rank_event(const char* what, int rank) const;
  void say(std::string text);
  void steps_done(const std::vector<nlohmann::json>& steps);
  void note_standstill(double now);
  void tell_of_ranks_left();

  ControllerSetup setup_;
  ControllerPhase phase_ = ControllerPhase::starting;
  std::vector<Agent> agents_;
  std::vector<RankSeat> ranks_;
  Store store_;
  StepBook book_;
  Postmortem postmortem_;
  std::vector<ControllerAction> actions_;
  double now_ = 0;
  double last_tick_ = 0;
  double next_beat_ = 0;
  double grace_end_ = 0;
  std::optional<double> deadline_;  // of the phase
  bool launched_ = false;
  int stops_pending_ = 0;
  int stop_signal_ = 0;     // the first one's
  bool hard_stop_ = false;  // asked twice: how the ranks end no longer matters
  RunOutcome outcome_;
};

}  // namespace trireme
