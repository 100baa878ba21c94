#include "planner/choices.h"

#include <fmt/format.h>

#include <algorithm>

#include "topology/base/error.h"

namespace trireme {

Job pinned_to(Job job, const Schedule& own) {
  const auto pin = [&](const char* key, std::optional<int>& value, int given) {
    if (value.value_or(given) != given) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("{} contradicts {}, which has {}",
                              name_of_pin(job.pins, key, std::to_string(*value)), own.name, given));
    }
    value = given;
  };
  pin("pipeline", job.pins.pipeline, own.pipeline());
  pin("chunks", job.pins.chunks, own.chunks());
  job.pins.schedule = std::nullopt;
  if (job.training.global_batch % own.micro_batches != 0) {
    throw Error(ErrorKind::bad_input,
                fmt::format("global_batch = {} is not divisible by the {} micro-batches of {}",
                            job.training.global_batch, own.micro_batches, own.name));
  }
  return job;
}

Choices::Choices(const Job& job, const Schedule* own, Reject reject)
    : job_(job), own_(own), reject_(std::move(reject)) {}

const std::vector<Options>& Choices::options(const Layout& degrees, bool cpu) {
  // Of replicas their number matters where some of them share an optimizer's state.
  const bool shares = job_.execution.sharding_ranks.value_or(0) > 0;
  const int replicas = shares ? degrees.data : std::min(degrees.data, 2);
  const auto key = std::make_tuple(cpu, degrees.tensor == 1, degrees.pipeline, replicas);
  const auto known = options_.find(key);
  if (known != options_.end()) return known->second;
  return options_.emplace(key, options_of(job_, cpu, degrees)).first->second;
}

const std::vector<Completion>& Choices::completions(const Layout& degrees) {
  const auto key = std::make_pair(degrees.pipeline, degrees.micro_batches);
  const auto known = completions_.find(key);
  if (known != completions_.end()) return known->second;
  return completions_.emplace(key, find_completions(degrees.pipeline, degrees.micro_batches))
      .first->second;
}

const std::vector<Completion>& Choices::possible_completions(int pipeline) {
  const auto known = possible_.find(pipeline);
  if (known != possible_.end()) return known->second;
  return possible_.emplace(pipeline, trireme::possible_completions(job_, pipeline)).first->second;
}

std::vector<Completion> Choices::find_completions(int pipeline, int micro_batches) {
  if (own_ != nullptr) {
    if (pipeline == own_->pipeline() && micro_batches == own_->micro_batches) {
      return {{own_->name, own_->chunks()}};
    }
    reject_(fmt::format("pipeline={} micro_batches={}", pipeline, micro_batches),
            fmt::format("{} has {} pipeline ranks and {} micro-batches", own_->name,
                        own_->pipeline(), own_->micro_batches));
    return {};
  }
  std::vector<Completion> result;
  for (const auto& [schedule, chunks] : possible_completions(pipeline)) {
    const auto no = why_not_searched(schedule, pipeline, micro_batches, chunks);
    if (!no) {
      result.push_back({schedule, chunks});
    } else {
      reject_(fmt::format("pipeline={} chunks={} micro_batches={} schedule={}", pipeline, chunks,
                          micro_batches, schedule),
              *no);
    }
  }
  return result;
}

}  // namespace trireme
