#include "planner/plan/plan.h"

#include <fmt/format.h>

#include "topology/base/check.h"

namespace trireme {

std::string rank_name(const Plan& plan, Rank rank) {
  TRIREME_CHECK(rank.value >= 0 && rank.value < static_cast<int>(plan.placement.size()));
  const auto& place = plan.placement[static_cast<size_t>(rank.value)];
  return fmt::format("r{} {} {}:{}", rank.value, coordinate_name(coordinates_of(plan.layout, rank)),
                     place.node, place.device);
}

}  // namespace trireme
