#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launcher/exit_status.h"
#include "planner/plan/run_directory.h"

namespace trireme {

// What an agent said about the end of a rank.
struct RankEnd {
  ExitStatus status;
  double silent_seconds = 0;  // how long the rank had said nothing when it ended
  nlohmann::json doing;       // launcher/doing.h
  std::vector<std::string> log_tail;
};

// Why a run failed, for people and for events.jsonl.
struct Failure {
  std::string subject;  // "r3 d0p1t1 laptop:3", "the agent of gpu07"
  std::optional<int> rank;
  std::string node;
  std::string cause;       // "killed by signal 9 (SIGKILL), ..."
  bool bad_input = false;  // what the rank was given to read cannot be used, as it said itself
  nlohmann::json doing;    // null for an agent
  std::vector<std::string> log_tail;
  std::string log;                    // where all of the log is
  std::vector<std::string> cascade;   // what fell because of it, in order of report
  std::vector<std::string> teardown;  // what was ended on purpose afterwards
};

nlohmann::json to_json(const Failure& failure);
// Several lines; the last ones of a failed run's output.
std::string to_text(const Failure& failure);

// Collects what is reported while a run falls apart, and then tells the first cause from what
// followed. The rule, in this order:
//   1. what went wrong by itself: a rank killed by a signal that was not ours, an exit with an
//   error of its own, an exit with
//      0 before the work was done, a rank or agent that stopped answering, an agent that went away
//   2. a rank that had been silent for kSuspectSeconds when it was ended: stopped, perhaps, while
//   the others ran into it
//   3. a rank that others lost and that says nothing of having lost one itself: dead or cut off,
//   though nobody saw it die
//   4. a rank that only says that it lost a peer
//   5. what trireme ended itself is never the cause, unless 2 or 3 hold
// Among equals the one that was heard of first. A rank that leaves because it lost a peer is lost
// by others in turn, so 3 follows the first such report from rank to rank to its end. Neither
// clocks of other machines nor the order in which a rank's words and its exit arrive play a role.
class Postmortem {
 public:
  // `names` by rank, `nodes` by rank.
  Postmortem(std::vector<std::string> names, std::vector<std::string> nodes);

  // `lost`: the peer that a "peer_lost" names.
  void rank_said_failed(int rank, const std::string& kind, const std::string& message,
                        std::optional<int> lost = std::nullopt);
  void rank_done(int rank);
  void rank_ended(int rank, RankEnd end);
  // Silent for kDeadSeconds, still there.
  void rank_hung(int rank, double silent_seconds, const nlohmann::json& doing);
  void agent_failed(const std::string& node, const std::string& why);
  // Adds how the agent's process ended to what was said about it.
  void agent_ended(const std::string& node, const ExitStatus& status);

  // For so long that agents may have left because of it.
  void controller_stood_still(double seconds) { stood_still_ = seconds; }

  // True as soon as anything has been reported that must end the run.
  bool something_failed() const;
  // The verdict. Only when something_failed().
  Failure verdict(const RunDirectory& run) const;

 private:
  enum class Class { own, suspect, missed, peer_lost, teardown, none };
  struct RankCase {
    int order = 0;  // when it was first heard of; 0: never
    std::string error_kind;
    std::string error_message;
    std::optional<int> lost;  // the peer that it lost
    bool done = false;
    bool hung = false;
    double silent_seconds = 0;
    nlohmann::json doing;
    std::optional<RankEnd> end;
  };
  struct AgentCase {
    int order = 0;
    std::string why;
    std::optional<ExitStatus> status;
  };

  static Class class_of(const RankCase& rank);
  static std::string cause_of(const RankCase& rank);
  std::optional<int> missed_rank() const;
  Class class_of(int rank) const;
  std::string cause_of(int rank) const;
  static std::string cause_of(const AgentCase& agent);
  RankCase& heard(int rank);
  std::string sentence(int rank) const;
  std::optional<int> worst_rank() const;
  const std::pair<const std::string, AgentCase>* worst_agent() const;
  Failure rank_failure(int rank, const RunDirectory& run) const;
  Failure agent_failure(const std::string& node, const AgentCase& agent,
                        const RunDirectory& run) const;

  std::vector<std::string> names_;
  std::vector<std::string> nodes_;
  std::vector<RankCase> ranks_;
  std::map<std::string, AgentCase> agents_;
  double stood_still_ = 0;
  int reports_ = 0;
};

}  // namespace trireme
