#pragma once

#include <string>

#include "topology/base/ids.h"

namespace trireme {

// The names inside a run directory: the launcher, the runtime and people meet here.
//   plan.toml job.toml rehearsal.toml events.jsonl metrics.jsonl logs/rank-00003.log
//   logs/agent-gpu07.log checkpoints/step-00000100/ trace/rank-00003.json trace/trace.json
struct RunDirectory {
  std::string root;

  std::string plan() const { return root + "/plan.toml"; }
  std::string job() const { return root + "/job.toml"; }
  std::string rehearsal() const { return root + "/rehearsal.toml"; }  // only of a rehearsal
  std::string events() const { return root + "/events.jsonl"; }
  std::string metrics() const { return root + "/metrics.jsonl"; }
  std::string logs() const { return root + "/logs"; }
  std::string checkpoints() const { return root + "/checkpoints"; }
  std::string trace() const { return root + "/trace"; }
  std::string rank_log(Rank rank) const;
  std::string agent_log(const std::string& node) const;
  std::string rank_trace(Rank rank) const;
  std::string merged_trace() const { return trace() + "/trace.json"; }
  std::string checkpoint(int step) const { return checkpoints() + "/" + checkpoint_name(step); }
  // While it is written. What a rank that was killed left of it begins with kPartial.
  std::string partial_checkpoint(int step) const;
  static constexpr const char* kPartial = ".partial-";
  static std::string checkpoint_name(int step);  // step: how many steps were done
};

}  // namespace trireme
