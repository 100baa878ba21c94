#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "planner/plan/job.h"
#include "planner/plan/layout.h"
#include "planner/plan/schedule.h"
#include "topology/base/ids.h"

namespace trireme {

// The consecutive layers of one (pipeline rank, chunk). A stage may have no layers, only an
// embedding or a head.
struct Stage {
  int pipeline_rank = 0;
  int chunk = 0;
  int first_layer = 0;
  int layers = 0;
  bool embedding = false;
  bool head = false;  // final norm, output projection and loss
  bool operator==(const Stage&) const = default;
};

struct PlacedRank {
  std::string node;  // host name
  int device = 0;    // index in the node
  bool operator==(const PlacedRank&) const = default;
};

// What the planner expects of one stage and one micro-batch, tensor collectives included.
struct StagePrediction {
  double forward_seconds = 0;
  double input_seconds = 0;     // input gradient; a full backward takes this and the next
  double weight_seconds = 0;    // weight gradient
  double activation_bytes = 0;  // kept from the forward until the backward (or weight gradient)
  bool operator==(const StagePrediction&) const = default;
};

// What the ops and messages of one pipeline take.
struct PipelineTimes {
  std::vector<StagePrediction> stages;  // by global stage; empty where nothing is known
  // A message to another pipeline rank takes the link for the transfer, one after the other, and is
  // there a hop later.
  double transfer_seconds = 0;
  double hop_seconds = 0;
  bool operator==(const PipelineTimes&) const = default;
};

// What one axis of the layout moves in a step, of the device that sends most over it.
struct AxisTraffic {
  std::string axis;    // tensor, data, pipeline
  double bytes = 0;    // sent
  double seconds = 0;  // that its messages take on their links, hidden behind work or not
  bool operator==(const AxisTraffic&) const = default;
};

// The busiest link of a tier: of a device inside its node, of a node to others, of a leaf to
// others.
struct LinkTraffic {
  std::string link;    // device, node, leaf
  std::string where;   // "gpu07:4", "gpu07", "gpu00 to gpu07"
  double bytes = 0;    // that leave it in a step
  double seconds = 0;  // for which they keep it busy
  bool operator==(const LinkTraffic&) const = default;
};

// What the planner expects. Times in seconds, sizes in bytes. The times of ops are those of the
// layout's first share.
struct Prediction : PipelineTimes {
  double step_seconds = 0;
  double tokens_per_second = 0;
  double model_tflops_per_device = 0;
  double hardware_tflops_per_device = 0;
  double mfu = 0;
  double bubble_fraction = 0;
  std::vector<double> memory_bytes_per_pipeline_rank;
  // When each pipeline rank first holds that much, from the start of the step.
  std::vector<double> peak_seconds_per_pipeline_rank;
  std::vector<AxisTraffic> traffic;  // of the axes longer than one rank
  std::vector<LinkTraffic> links;    // of the tiers that messages cross
  std::vector<std::pair<std::string, double>>
      breakdown;                            // seconds of the step by cause, in printing order
  std::vector<PipelineTimes> other_shares;  // of the second share and on; empty: nothing is known

  // Of the step what follows the pipeline's last op.
  double seconds_after_ops() const;
  bool operator==(const Prediction&) const = default;
};

// The contract between planner, launcher and runtime: Layout + Stages + Schedule + Placement +
// Prediction, and the Job.
struct Plan {
  std::string cluster;  // its name
  std::string device;   // catalogue name of the device
  Job job;
  Layout layout;
  std::vector<Stage> stages;  // by global stage
  Schedule schedule;
  std::vector<Schedule> other_schedules = {};  // of the layout's second share and on
  std::vector<PlacedRank> placement;           // by rank
  Prediction prediction;

  const Schedule& schedule_of(int replica) const {
    const size_t share = layout.share_of(replica);
    return share == 0 ? schedule : other_schedules[share - 1];
  }
  const PipelineTimes& times_of(int replica) const {
    const size_t share = layout.share_of(replica);
    return share == 0 ? prediction : prediction.other_shares[share - 1];
  }
  bool operator==(const Plan&) const = default;
};

// The plan file (planner/plan/FORMAT.md): TOML that reads back to an equal Plan, doubles included.
// Reading validates: degrees, stages that cover every layer once, one cell row per pipeline rank, a
// placement for each rank. Throws Error(bad_input).
std::string to_toml(const Plan& plan);
Plan parse_plan(std::string_view text, const std::string& name);
Plan read_plan(const std::string& path);

// True when the text is a plan file rather than a job file (it starts from the format line).
bool is_plan_file(std::string_view text);

// "r12 d0p1t4 gpu07:4": how a rank is named in prefixes, logs, events and errors.
std::string rank_name(const Plan& plan, Rank rank);

}  // namespace trireme
