#include "planner/schedules/schedules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <limits>

#include "planner/schedules/family.h"
#include "planner/schedules/variants.h"
#include "planner/synthesis/automatic.h"
#include "topology/base/check.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

using Refusal = std::optional<std::string>;
using Chunks = FamilyMember::Chunks;

Error refuse(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

Refusal refuse_unless_positive(const char* what, int value) {
  if (value >= 1) return std::nullopt;
  return fmt::format("{} must be at least 1, found {}", what, value);
}

template <class Which>
std::vector<std::string> names_where(Which&& which) {
  std::vector<std::string> names;
  for (const FamilyMember& member : schedule_family()) {
    if (which(member)) names.emplace_back(member.name);
  }
  return names;
}

template <class Which>
std::string names_of(Which&& which) {
  return fmt::format("{}", fmt::join(names_where(which), ", "));
}

Refusal refuse_chunks(const FamilyMember& member, int chunks) {
  if (member.chunks == Chunks::one && chunks != 1) {
    return fmt::format(
        "{} gives each pipeline rank one stage, so chunks must be 1, found {}; these take any "
        "number: {}",
        member.name, chunks,
        names_of([](const FamilyMember& m) { return m.chunks == Chunks::any; }));
  }
  if (member.chunks == Chunks::v && chunks != 2) {
    return fmt::format(
        "{} gives each pipeline rank one stage on either arm of a V, so chunks must be 2, found {}",
        member.name, chunks);
  }
  return std::nullopt;
}

Refusal refuse_group(const FamilyMember& member, int p, int m, int g) {
  if (!member.groups) {
    return fmt::format("{} has no groups of micro-batches; these take a group: {}", member.name,
                       names_of([](const FamilyMember& other) { return other.groups; }));
  }
  const std::string what = fmt::format("{} with groups of {} micro-batches", member.name, g);
  if (m < p) {
    return fmt::format(
        "{}: {} micro-batches on {} pipeline ranks always form one group; leave the group out",
        what, m, p);
  }
  if (g < p) {
    return fmt::format(
        "{}: a group must be at least as long as the pipeline ({} ranks), or the first rank waits "
        "for the last between chunks",
        what, p);
  }
  if (g > m) return fmt::format("{}: there are only {} micro-batches", what, m);
  if (m % g != 0 && m % g < p) {
    return fmt::format(
        "{}: {} micro-batches leave a last group of {}, shorter than the pipeline ({} ranks); "
        "choose a group that divides {} or leaves at least {}",
        what, m, m % g, p, m, p);
  }
  return std::nullopt;
}

Refusal refuse_warm_up(const FamilyMember& member, const ScheduleRequest& request) {
  if (!request.warm_up && !request.latency_aware) return std::nullopt;
  const bool otherwise = request.latency_aware && (member.placed_anew || member.deeper_pairs);
  if (member.warm_up_slope == 0 && !otherwise) {
    return fmt::format("{} has no warm-up that could be deepened; these have: {}", member.name,
                       names_of([](const FamilyMember& m) { return m.warm_up_slope > 0; }));
  }
  if (request.warm_up && request.latency_aware) {
    return std::string("a warm-up is either given or chosen by latency, not both");
  }
  if (request.warm_up && *request.warm_up < 0) {
    return fmt::format("{}: a warm-up can be deepened, not shortened; found {}", member.name,
                       *request.warm_up);
  }
  return std::nullopt;
}

Refusal refuse_memory_limit(const ScheduleRequest& request) {
  if (!request.memory_limit) return std::nullopt;
  const size_t count = request.memory_limit->size();
  if (count == 1 || count == static_cast<size_t>(request.pipeline)) return std::nullopt;
  return fmt::format("a memory limit is one number or one for each of {} ranks, found {}",
                     request.pipeline, count);
}

int chunks_of(const FamilyMember& member, const ScheduleRequest& request) {
  return request.chunks.value_or(member.chunks == Chunks::v ? 2 : 1);
}

Refusal refuse_costs(const FamilyMember& member, const ScheduleRequest& request) {
  const size_t costs = request.costs.stages.size();
  const int stages = request.pipeline * chunks_of(member, request);
  if (costs == 1 || costs == static_cast<size_t>(stages)) return std::nullopt;
  return fmt::format("{}: found costs of {} stages, expected one for all or {}", member.name, costs,
                     stages);
}

Refusal refuse_shape(const FamilyMember& member, const ScheduleRequest& request) {
  const int p = request.pipeline, m = request.micro_batches, v = chunks_of(member, request);
  if (Refusal no = refuse_unless_positive("pipeline", p)) return no;
  if (Refusal no = refuse_unless_positive("micro-batches", m)) return no;
  if (Refusal no = refuse_unless_positive("chunks", v)) return no;
  if (Refusal no = refuse_chunks(member, v)) return no;
  if (request.group) {
    if (Refusal no = refuse_group(member, p, m, *request.group)) return no;
  }
  if (Refusal no = refuse_warm_up(member, request)) return no;
  if (member.name == std::string("dualpipe-v") && m < 2 * p) {
    return fmt::format(
        "dualpipe-v fills both arms of its V before pairs overlap, so {} pipeline ranks need {} "
        "micro-batches or more, found {}; zb-v takes any number",
        p, 2 * p, m);
  }
  return std::nullopt;
}

const FamilyMember& built_member(const std::string& name) {
  const FamilyMember* member = find_member(name);
  TRIREME_CHECK(member != nullptr);
  return *member;
}

// What the search of all schedules finds (synthesis/automatic.h).
Schedule found_schedule(const ScheduleRequest& request) {
  if (request.group || request.warm_up || request.latency_aware) {
    throw refuse("auto chooses groups and warm-ups itself; leave them out");
  }
  AutoRequest wanted;
  wanted.pipeline = request.pipeline;
  wanted.micro_batches = request.micro_batches;
  wanted.chunks = request.chunks.value_or(1);
  wanted.costs = request.costs;
  wanted.costs.memory.clear();  // the limit counts activations
  if (request.memory_limit) {
    wanted.memory_limit = {request.memory_limit->begin(), request.memory_limit->end()};
  }
  return choose_schedule(wanted).schedule;
}

}  // namespace

void require_built(const std::string& name) {
  if (name == "auto" || find_member(name) != nullptr) return;
  std::vector<std::string> names = built_schedules();
  names.emplace_back("auto");
  const auto nearest = nearest_name(name, names);
  throw refuse(fmt::format("no schedule is called \"{}\"{}; there are: {}", name,
                           nearest ? fmt::format(" (did you mean \"{}\"?)", *nearest) : "",
                           fmt::join(names, ", ")));
}

Schedule make_schedule(const ScheduleRequest& request) {
  if (request.name == "auto") return found_schedule(request);
  require_built(request.name);
  const FamilyMember& member = built_member(request.name);
  if (const Refusal no = refuse_shape(member, request)) throw refuse(*no);
  if (const Refusal no = refuse_memory_limit(request)) throw refuse(*no);
  if (const Refusal no = refuse_costs(member, request)) throw refuse(*no);
  return best_variant(member, request, chunks_of(member, request));
}

std::optional<std::string> why_not(const ScheduleRequest& request) {
  return refuse_shape(built_member(request.name), request);
}

StepBound schedule_bound(const std::string& name, int pipeline, int chunks, const Costs& costs,
                         std::optional<int> at) {
  const FamilyMember& member = built_member(name);
  StepBound bound(at);
  member.bound(pipeline, chunks, costs, bound);
  add_trips(member, pipeline, chunks, costs, bound);
  return bound;
}

namespace {

// Of the legal groups the `most` shortest.
std::vector<int> shortest_groups(int pipeline, int micro_batches, size_t most) {
  if (micro_batches <= pipeline) return {micro_batches};
  std::vector<int> groups;
  for (int g = pipeline; g <= micro_batches && groups.size() < most; ++g) {
    const int last = micro_batches % g;
    if (last == 0 || last >= pipeline) groups.push_back(g);
  }
  return groups;
}

}  // namespace

std::vector<int> least_peak_activations(const std::string& name, int pipeline, int chunks,
                                        int micro_batches) {
  const FamilyMember& member = built_member(name);
  Shape shape{pipeline, micro_batches, chunks};
  if (member.groups) shape.group = shortest_groups(pipeline, micro_batches, 1).front();
  std::vector<int> peaks;
  peaks.reserve(static_cast<size_t>(pipeline));
  for (int rank = 0; rank < pipeline; ++rank) peaks.push_back(member.least_peak(shape, rank));
  return peaks;
}

// Without groups it is the schedule of one less with a round more: in every rank's order the ops of
// one round, as begun at some moment, can be left out, or else those of one micro-batch. What
// remains then waits for no more than before.
std::optional<int> schedule_grows_from(const std::string& name, int pipeline) {
  if (built_member(name).groups) return std::nullopt;
  return 3 * pipeline;
}

std::vector<std::optional<int>> groups_to_try(const std::string& name, int pipeline,
                                              int micro_batches, size_t most) {
  if (!built_member(name).groups || micro_batches < pipeline) return {std::nullopt};
  const std::vector<int> groups = shortest_groups(pipeline, micro_batches, most);
  return {groups.begin(), groups.end()};
}

std::optional<int> fixed_chunks(const std::string& name) {
  const Chunks chunks = built_member(name).chunks;
  if (chunks == Chunks::any) return std::nullopt;
  return chunks == Chunks::v ? 2 : 1;
}

std::optional<std::string> same_with_one_chunk(const std::string& name) {
  const char* same = built_member(name).with_one_chunk;
  return same != nullptr ? std::optional<std::string>(same) : std::nullopt;
}

bool splits_backward(const std::string& name) {
  return built_member(name).splits;
}

bool v_placed(const std::string& name) {
  return built_member(name).chunks == FamilyMember::Chunks::v;
}

std::vector<StagePlace> places_of(const std::string& name, int pipeline, int chunks) {
  return built_member(name).places(pipeline, chunks);
}

std::vector<std::string> built_schedules() {
  return names_where([](const FamilyMember&) { return true; });
}

std::vector<std::string> searched_schedules() {
  return names_where([](const FamilyMember& member) { return member.searched; });
}

std::vector<int> legal_groups(int pipeline, int micro_batches) {
  return shortest_groups(pipeline, micro_batches, std::numeric_limits<size_t>::max());
}

}  // namespace trireme
