#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "planner/plan/job.h"
#include "planner/profile/accelerator_profile.h"
#include "planner/simulator.h"

namespace trireme {

// What training steps of one model really took (docs/profile.md): on one machine with CPU slots,
// measured by `trireme profile`, or on accelerators, written by hand; then `accelerator` is set and
// of the rest only name, model and dtype mean anything. Seconds on CPU slots are those of a rank
// that has the cores it can use to itself.
struct Profile {
  // One layer, the embedding and the head, one micro-batch, on one tensor group.
  struct Parts {
    StageCost layer{0, 0, 0};
    StageCost embedding{0, 0, 0};
    StageCost head{0, 0, 0};
    double cores = 1;  // that the ranks of the group keep busy while one of these ops runs
  };
  struct MeasuredParts {
    int tensor = 1;
    int micro_batch = 1;
    int threads = 1;  // of each rank
    Parts parts;
  };
  // An activation or gradient that goes to another pipeline rank.
  struct Message {
    double hop_seconds = 0;  // from the end of its op until the next rank could start
    double hop_seconds_per_byte = 0;
    double rank_seconds = 0;  // of each of the two ranks, which compute nothing meanwhile
    double rank_seconds_per_byte = 0;

    double hop(double bytes) const { return hop_seconds + bytes * hop_seconds_per_byte; }
    double busy(double bytes) const { return rank_seconds + bytes * rank_seconds_per_byte; }
  };
  // What a rank spends on a step beside its ops: norms, agreement, optimizer, packing of weights,
  // exchange of gradients.
  struct StepEnd {
    double seconds = 0;
    double seconds_per_peer = 0;  // for each rank that it agrees with
    double seconds_per_parameter = 0;
    double seconds_per_exchanged_byte = 0;  // of 2 (data - 1) / data times its gradient
  };

  std::string name;  // of the file
  Model model;       // any number of layers
  Dtype dtype = Dtype::fp32;
  Reduction reduction = Reduction::ordered;
  int cores = 1;  // that the ranks of the machine share
  std::optional<AcceleratorProfile> accelerator;
  std::vector<MeasuredParts> measured;
  Message message;
  StepEnd end;

  // The figures for these degrees: between measured micro-batches on a straight line, beyond them
  // on the line through the last two (below the smallest, and with one alone, in proportion).
  // Nothing when this tensor degree was not measured with so many threads.
  std::optional<Parts> parts(int tensor, int micro_batch, int threads) const;

  // Threads of each of `ranks` ranks on one machine, as the runtime shares out its cores.
  int threads(int ranks) const { return ranks < cores ? cores / ranks : 1; }
};

// The file: TOML, strict, every key required. Throws Error(bad_input) with file, line and key.
Profile read_profile(const std::string& path);
Profile parse_profile(std::string_view text, const std::string& name);
std::string to_toml(const Profile& profile);

// Throws Error(bad_input) where the profile is of another model, data type or reduction than the
// job's, naming what differs. The number of layers may differ.
void check_profile(const Profile& profile, const Job& job);

}  // namespace trireme
