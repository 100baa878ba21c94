#include "planner/layout_text.h"

#include <fmt/format.h>

namespace trireme {
namespace {

// What a layout has besides degrees and schedule.
std::string describe_options(const Layout& layout) {
  std::string text;
  if (layout.recompute != Recompute::none) {
    text += fmt::format(" recompute={}", name_of(layout.recompute));
    if (layout.recompute_ranks > 0) {
      text += fmt::format(" recompute_ranks={}", layout.recompute_ranks);
    }
  }
  if (layout.sequence_parallel) text += " sequence_parallel=true";
  if (layout.optimizer_sharding > 0) {
    text += fmt::format(" optimizer_sharding={}", layout.optimizer_sharding);
  }
  return text;
}

std::string describe_shares(const Layout& layout) {
  std::string text;
  for (const Share& share : layout.shares) {
    text += fmt::format("{}{}x{}", text.empty() ? " micro_batches=" : "+", share.replicas,
                        share.micro_batches);
  }
  return text;
}

}  // namespace

std::string describe_degrees(const Layout& layout) {
  return fmt::format("tensor={} pipeline={} data={} micro_batch={}{}", layout.tensor,
                     layout.pipeline, layout.data, layout.micro_batch,
                     describe_shares(layout) + describe_options(layout));
}

std::string describe(const Layout& layout) {
  return fmt::format("tensor={} pipeline={} data={} chunks={} micro_batch={} schedule={}{}",
                     layout.tensor, layout.pipeline, layout.data, layout.chunks, layout.micro_batch,
                     layout.schedule, describe_shares(layout) + describe_options(layout));
}

}  // namespace trireme
