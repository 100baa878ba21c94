#include "planner/profile/measured_step.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/profile/fit.h"

namespace trireme {

std::optional<Profile::Parts> MeasuredStep::parts(const Layout& layout) const {
  if (layout.recompute != Recompute::none || layout.sequence_parallel ||
      layout.optimizer_sharding != 0) {
    return std::nullopt;
  }
  const int busy = std::min(nodes_.devices, layout.ranks());
  return profile_.parts(layout.tensor, layout.micro_batch, profile_.threads(busy));
}

std::string MeasuredStep::basis(const Layout& layout) const {
  const int threads = profile_.threads(std::min(nodes_.devices, layout.ranks()));
  if (!parts(layout)) {
    return fmt::format(
        "{} has no figures for tensor = {} with {} thread{} per rank, recompute {}: the prediction "
        "rests on the cluster file and may not compare with those of measured layouts",
        profile_.name, layout.tensor, threads, threads == 1 ? "" : "s", name_of(layout.recompute));
  }
  std::string sizes;
  bool measured = false;
  for (const Profile::MeasuredParts& row : profile_.measured) {
    if (row.tensor != layout.tensor || row.threads != threads) continue;
    sizes += (sizes.empty() ? "" : ", ") + std::to_string(row.micro_batch);
    measured = measured || row.micro_batch == layout.micro_batch;
  }
  return fmt::format(
      "op, message and step-end times are those of {}{}; ranks share {} core{}", profile_.name,
      measured
          ? ""
          : fmt::format(", for micro-batch {} from the line through {}", layout.micro_batch, sizes),
      profile_.cores, profile_.cores == 1 ? "" : "s");
}

void MeasuredStep::add_messages(const Layout& layout, const std::vector<Stage>& stages,
                                Costs& costs) const {
  const double bytes = 4.0 * layout.micro_batch * profile_.model.sequence * profile_.model.hidden;
  costs.hop = profile_.message.hop(bytes);
  const double busy = profile_.message.busy(bytes);
  for (size_t s = 1; s < stages.size(); ++s) {
    if (stages[s - 1].pipeline_rank == stages[s].pipeline_rank) continue;
    // An activation goes one way and its gradient the other; both ranks are busy with each.
    for (const size_t end : {s - 1, s}) {
      costs.stages[end].forward += busy;
      costs.stages[end].input += busy;
    }
  }
}

SharedCores MeasuredStep::shared_cores(const Layout& layout) const {
  const auto measured = parts(layout);
  const double each = (measured ? measured->cores : layout.tensor) / layout.tensor;
  const auto machines = static_cast<size_t>(machine_of(layout.ranks() - 1)) + 1;
  SharedCores shared;
  shared.cores.assign(machines, profile_.cores);
  shared.demand.assign(static_cast<size_t>(layout.pipeline), std::vector<double>(machines, 0));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const auto pipeline = static_cast<size_t>(coordinates_of(layout, Rank(rank)).pipeline);
    shared.demand[pipeline][static_cast<size_t>(machine_of(rank))] += each;
  }
  return shared;
}

double MeasuredStep::work_bound(const Layout& layout, const std::vector<double>& seconds) const {
  const SharedCores shared = shared_cores(layout);
  double bound = 0;
  for (size_t machine = 0; machine < shared.cores.size(); ++machine) {
    double work = 0;
    for (size_t rank = 0; rank < seconds.size(); ++rank) {
      work += seconds[rank] * shared.demand[rank][machine];
    }
    bound = std::max(bound, work / shared.cores[machine]);
  }
  return bound;
}

// The machine with most to do has no less than the average one.
double MeasuredStep::average_bound(const Layout& layout, double seconds) const {
  const SharedCores shared = shared_cores(layout);
  double demand = 0, cores = 0;
  for (const auto& of_rank : shared.demand) {
    for (const double share : of_rank) demand += share;
  }
  for (const double machine : shared.cores) cores += machine;
  return seconds * demand / cores;
}

MeasuredStep::End MeasuredStep::end(const Layout& layout,
                                    const std::vector<double>& parameters) const {
  const Profile::StepEnd& figures = profile_.end;
  const int peers = layout.tensor * layout.pipeline - 1 + layout.data - 1;
  std::vector<End> of_rank;
  of_rank.reserve(parameters.size());
  for (const double count : parameters) {
    of_rank.push_back({figures.seconds_per_exchanged_byte * exchanged_bytes(count, layout.data),
                       figures.seconds + figures.seconds_per_peer * peers +
                           figures.seconds_per_parameter * count});
  }
  const auto less = [](const End& a, const End& b) { return a.total() < b.total(); };
  End longest = *std::max_element(of_rank.begin(), of_rank.end(), less);
  std::vector<End> of_machine(static_cast<size_t>(machine_of(layout.ranks() - 1) + 1));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const End& own = of_rank[static_cast<size_t>(coordinates_of(layout, Rank(rank)).pipeline)];
    End& machine = of_machine[static_cast<size_t>(machine_of(rank))];
    machine.exchange += own.exchange / profile_.cores;
    machine.update += own.update / profile_.cores;
  }
  return std::max(longest, *std::max_element(of_machine.begin(), of_machine.end(), less), less);
}

}  // namespace trireme
