#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "launcher/exit_status.h"

namespace trireme {

// The agent of one node as a pure state machine, like the controller's
// (launcher/controller_state.h): events in, actions out, time an argument; the table is in
// agent_state.cc.
enum class AgentPhase {
  waiting,   // for the order to launch
  running,   // ranks are alive, or have ended by themselves
  ending,    // told to abort: the ranks have a moment for their last words
  killing,   // the ranks were killed
  orphaned,  // the controller is gone: the ranks were killed
  gone
};

// Events.
struct ControllerSaid {
  nlohmann::json message;
};
struct ControllerLost {
  std::string why;
};
struct RankSpawned {
  int rank = 0;
  int64_t pid = 0;
};
struct SpawnFailed {
  int rank = 0;
  std::string why;
};
struct RankSaid {
  int rank = 0;
  nlohmann::json message;
};
struct RankEnded {  // after everything it had said was delivered
  int rank = 0;
  ExitStatus status;
  nlohmann::json doing;
  std::vector<std::string> log_tail;
};
struct AgentTick {};
using AgentEvent = std::variant<ControllerSaid, ControllerLost, RankSpawned, SpawnFailed, RankSaid,
                                RankEnded, AgentTick>;

// Actions.
struct SpawnRank {
  int rank = 0;
  std::string run_directory;
  std::string resume;
};
struct SignalRank {
  int rank = 0;
  int signal = 0;
};
struct SendToController {
  nlohmann::json message;
};
// A rank that has said nothing for too long: tell the controller, with what its status page shows.
struct ReportSilence {
  int rank = 0;
  double seconds = 0;
};
struct SendToRank {
  int rank = 0;
  nlohmann::json message;
};
struct BlameController {  // to the agent's log, events.jsonl and the terminal
  std::string why;
  std::vector<int> killed;
};
struct LeaveRun {
  int exit_code = 0;
};
using AgentAction = std::variant<SpawnRank, SignalRank, SendToController, ReportSilence, SendToRank,
                                 BlameController, LeaveRun>;

class AgentState {
 public:
  explicit AgentState(double now) : now_(now), last_tick_(now), controller_heard_(now) {}

  // Throws when a message lacks what it must have.
  std::vector<AgentAction> handle(const AgentEvent& event, double now);

  AgentPhase phase() const { return phase_; }

  // An agent that hears nothing for this long ends its ranks. Shorter than kDeadSeconds, so that
  // they are gone before the controller may believe so.
  static constexpr double kLeaseSeconds = 8;
  // For a rank's first word: before that it loads libraries.
  static constexpr double kFirstWordSeconds = 30;
  // For killed ranks to be gone once nobody waits for them any more.
  static constexpr double kOrphanSeconds = 2;

 private:
  friend struct AgentTable;
  struct RankSeat {
    int rank = 0;
    bool alive = true;
    bool spoke = false;
    bool reported_silent = false;
    double last_heard = 0;
  };

  void on(const ControllerSaid& event);
  void on(const ControllerLost& event);
  void on(const RankSpawned& event);
  void on(const SpawnFailed& event);
  void on(const RankSaid& event);
  void on(const RankEnded& event);
  void on(const AgentTick& event);
  void watch_silence();

  // Facts of the table.
  bool launch_asked() const { return !order_.is_null(); }
  bool abort_asked() const { return kill_at_.has_value(); }
  bool grace_over() const { return kill_at_ && now_ >= *kill_at_; }
  bool may_leave() const { return leave_asked_ && every_rank_gone(); }
  bool controller_gone() const { return !controller_lost_.empty(); }
  bool every_rank_gone() const;
  bool out_of_time() const { return deadline_ && now_ >= *deadline_; }

  // What the table does on the way.
  void nothing() {}
  void spawn_ranks();
  void kill_ranks();
  void blame_controller();
  void leave_clean();
  void leave_orphaned();

  void follow_table();
  void signal_ranks(int signal);
  RankSeat& seat(int rank);
  void tell_controller(nlohmann::json message);

  AgentPhase phase_ = AgentPhase::waiting;
  std::vector<RankSeat> ranks_;
  std::vector<AgentAction> actions_;
  double now_;
  double last_tick_;
  double controller_heard_;
  double next_beat_ = 0;
  nlohmann::json order_;           // the launch message
  std::optional<double> kill_at_;  // set by "abort"
  std::optional<double> deadline_;
  bool leave_asked_ = false;
  std::string controller_lost_;  // why
};

}  // namespace trireme
