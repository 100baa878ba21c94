#include "planner/plan/plan.h"

#include <fmt/format.h>

#include "topology/base/check.h"

namespace trireme {

double Prediction::seconds_after_ops() const {
  double seconds = 0;
  for (const auto& [cause, part] : breakdown) {
    if (cause == "data_reduction" || cause == "tied_embeddings" || cause == "optimizer" ||
        cause == "shared_links") {
      seconds += part;
    }
  }
  return seconds;
}

std::string rank_name(const Plan& plan, Rank rank) {
  TRIREME_CHECK(rank.value >= 0 && rank.value < static_cast<int>(plan.placement.size()));
  const auto& place = plan.placement[static_cast<size_t>(rank.value)];
  return fmt::format("r{} {} {}:{}", rank.value, coordinate_name(coordinates_of(plan.layout, rank)),
                     place.node, place.device);
}

}  // namespace trireme
