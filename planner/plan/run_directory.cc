#include "planner/plan/run_directory.h"

#include <fmt/format.h>

namespace trireme {

std::string RunDirectory::rank_log(Rank rank) const {
  return fmt::format("{}/rank-{:05}.log", logs(), rank.value);
}
std::string RunDirectory::agent_log(const std::string& node) const {
  return fmt::format("{}/agent-{}.log", logs(), node);
}
std::string RunDirectory::rank_trace(Rank rank) const {
  return fmt::format("{}/rank-{:05}.json", trace(), rank.value);
}
std::string RunDirectory::partial_checkpoint(int step) const {
  return fmt::format("{}/{}{}", checkpoints(), kPartial, checkpoint_name(step));
}

std::string RunDirectory::checkpoint_name(int step) {
  return fmt::format("step-{:08}", step);
}

}  // namespace trireme
