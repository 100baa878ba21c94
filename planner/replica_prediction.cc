#include "planner/replica_prediction.h"

#include <algorithm>
#include <limits>

namespace trireme {
namespace {

// The busier of those that two sets share.
void add_links(const std::vector<LinkTraffic>& of_set, std::vector<LinkTraffic>& links) {
  for (const LinkTraffic& link : of_set) {
    const auto same = std::find_if(links.begin(), links.end(),
                                   [&](const auto& known) { return known.link == link.link; });
    if (same == links.end()) {
      links.push_back(link);
    } else if (same->seconds < link.seconds) {
      *same = link;
    }
  }
}

std::vector<double> memory_of_fullest(const StepModel& model,
                                      const std::vector<PlacedLayout>& parts,
                                      const std::vector<Prediction>& of_sets) {
  std::vector<double> bytes;
  for (int rank = 0; rank < parts.front().pipeline; ++rank) {
    double least_room = std::numeric_limits<double>::infinity();
    bytes.push_back(0);
    for (size_t set = 0; set < parts.size(); ++set) {
      const double held = of_sets[set].memory_bytes_per_pipeline_rank[static_cast<size_t>(rank)];
      const double room = model.device_memory(parts[set], rank) - held;
      if (room >= least_room) continue;
      least_room = room;
      bytes.back() = held;
    }
  }
  return bytes;
}

}  // namespace

Prediction prediction_of_all(const StepModel& model, const std::vector<PlacedLayout>& parts,
                             const std::vector<Prediction>& of_sets) {
  Prediction whole = of_sets.front();
  double peak = 0;  // FLOP/s of the average device
  std::vector<PipelineRun> runs;
  for (size_t set = 0; set < parts.size(); ++set) {
    const Prediction& of_set = of_sets[set];
    const int replicas = parts[set].replicas();
    // The rate that the step's tokens come at over the share of the peak that it is.
    peak += of_set.model_tflops_per_device / of_set.mfu * replicas / parts[set].data;
    runs.push_back(
        {replicas, of_set.step_seconds - of_set.seconds_after_ops(), of_set.bubble_fraction});
    if (set == 0) continue;
    whole.other_shares.push_back(of_set);
    add_links(of_set.links, whole.links);
  }
  whole.mfu = whole.model_tflops_per_device / peak;
  whole.bubble_fraction = bubble_of_all(runs);
  whole.memory_bytes_per_pipeline_rank = memory_of_fullest(model, parts, of_sets);
  return whole;
}

}  // namespace trireme
