#include "planner/schedules/schedules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>

#include "planner/schedules/generators.h"
#include "topology/base/check.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

Error refuse(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

void require_positive(const char* what, int value) {
  if (value < 1) throw refuse(fmt::format("{} must be at least 1, found {}", what, value));
}

void require_single_stage(const ScheduleRequest& request) {
  if (request.chunks != 1) {
    throw refuse(
        fmt::format("{} gives each pipeline rank one stage, so chunks must be 1, found {}; "
                    "interleaved takes more",
                    request.name, request.chunks));
  }
  if (request.group) {
    throw refuse(fmt::format("{} has no groups of micro-batches; only interleaved takes a group",
                             request.name));
  }
}

void require_legal_group(const ScheduleRequest& request) {
  const int p = request.pipeline, m = request.micro_batches, g = *request.group;
  const std::string what = fmt::format("interleaved with groups of {} micro-batches", g);
  if (m < p) {
    throw refuse(
        fmt::format("{}: {} micro-batches on {} pipeline ranks always form one group; leave "
                    "the group out",
                    what, m, p));
  }
  if (g < p) {
    throw refuse(
        fmt::format("{}: a group must be at least as long as the pipeline ({} ranks), or the "
                    "first rank waits for the last between chunks",
                    what, p));
  }
  if (g > m) throw refuse(fmt::format("{}: there are only {} micro-batches", what, m));
  if (m % g != 0 && m % g < p) {
    throw refuse(
        fmt::format("{}: {} micro-batches leave a last group of {}, shorter than the pipeline "
                    "({} ranks); choose a group that divides {} or leaves at least {}",
                    what, m, m % g, p, m, p));
  }
}

// The group of least makespan; the smaller on a tie. A group that reaches the lower bound ends the
// search, since no other can be better.
Schedule interleaved_with_best_group(const ScheduleRequest& request) {
  const int p = request.pipeline, m = request.micro_batches;
  constexpr double kTie = 1 + 1e-9;
  const double bound = makespan_bound(loop_placement(p, request.chunks), p, m, request.costs);
  Schedule best;
  double least = 0;
  for (const int group : legal_groups(p, m)) {
    Schedule schedule = interleaved_schedule(p, m, request.chunks, group);
    const double makespan = makespan_of(schedule, request.costs);
    if (best.ranks.empty() || makespan * kTie < least) {
      best = std::move(schedule);
      least = makespan;
    }
    if (least <= bound * kTie || request.chunks == 1) break;
  }
  return best;
}

Schedule make_naive(const ScheduleRequest& request) {
  require_single_stage(request);
  return naive_schedule(request.pipeline, request.micro_batches);
}

Schedule make_gpipe(const ScheduleRequest& request) {
  require_single_stage(request);
  return gpipe_schedule(request.pipeline, request.micro_batches);
}

Schedule make_one_forward_one_backward(const ScheduleRequest& request) {
  require_single_stage(request);
  return one_forward_one_backward_schedule(request.pipeline, request.micro_batches);
}

Schedule make_interleaved(const ScheduleRequest& request) {
  if (!request.group) return interleaved_with_best_group(request);
  require_legal_group(request);
  return interleaved_schedule(request.pipeline, request.micro_batches, request.chunks,
                              *request.group);
}

double loop_bound(int p, int v, int m, const Costs& costs) {
  return makespan_bound(loop_placement(p, v), p, m, costs);
}

// Nothing overlaps, so a step is all the work of all ranks and every hop.
double naive_time(int p, int, int m, const Costs& costs) {
  double once = 2.0 * (p - 1) * costs.hop;
  for (int stage = 0; stage < p; ++stage) {
    once += costs.of_stage(stage).forward + costs.of_stage(stage).backward();
  }
  return m * once;
}

struct Entry {
  const char* name;
  Schedule (*make)(const ScheduleRequest&);  // nullptr: known, not built by this version
  double (*bound)(int p, int v, int m, const Costs&) = nullptr;
  int (*least_peak)(int p, int v, int m, int rank) = nullptr;
  bool takes_chunks = false;
};

constexpr Entry kRegistry[] = {
    {"1f1b", make_one_forward_one_backward, loop_bound,
     [](int p, int, int m, int r) { return std::min(p - r, m); }},
    {"interleaved", make_interleaved, loop_bound,
     [](int p, int v, int m, int r) {
       return std::min(2 * (p - 1 - r) + (v - 1) * std::min(p, m) + 1, m * v);
     },
     true},
    {"gpipe", make_gpipe, loop_bound, [](int, int, int m, int) { return m; }},
    {"naive", make_naive, naive_time, [](int, int, int, int) { return 1; }},
    {"pipedream", nullptr},
    {"eager-1f1b", nullptr},
    {"breadth-first", nullptr},
    {"zb-h1", nullptr},
    {"interleaved-zb", nullptr},
    {"zb-h2", nullptr},
    {"zb-v", nullptr},
    {"v-half", nullptr},
    {"v-min", nullptr},
    {"dualpipe-v", nullptr},
    {"forward-only", nullptr},
    {"auto", nullptr},
};

const Entry* find_entry(const std::string& name) {
  const auto entry = std::find_if(std::begin(kRegistry), std::end(kRegistry),
                                  [&](const Entry& e) { return name == e.name; });
  return entry == std::end(kRegistry) ? nullptr : entry;
}

const Entry& built_entry(const std::string& name) {
  const Entry* entry = find_entry(name);
  TRIREME_CHECK(entry != nullptr && entry->make != nullptr);
  return *entry;
}

}  // namespace

Schedule make_schedule(const ScheduleRequest& request) {
  const Entry* entry = find_entry(request.name);
  const std::string built = fmt::format("{}", fmt::join(built_schedules(), ", "));
  if (entry == nullptr) {
    std::vector<std::string> names;
    for (const Entry& known : kRegistry) names.emplace_back(known.name);
    const auto nearest = nearest_name(request.name, names);
    throw refuse(fmt::format("no schedule is called \"{}\"{}; there are: {}", request.name,
                             nearest ? fmt::format(" (did you mean \"{}\"?)", *nearest) : "",
                             built));
  }
  if (entry->make == nullptr) {
    throw Error(ErrorKind::unavailable,
                fmt::format("schedule \"{}\" is not built by this version; there are: {}",
                            request.name, built));
  }
  require_positive("pipeline", request.pipeline);
  require_positive("micro-batches", request.micro_batches);
  require_positive("chunks", request.chunks);
  return entry->make(request);
}

double schedule_bound(const std::string& name, int pipeline, int chunks, int micro_batches,
                      const Costs& costs) {
  return built_entry(name).bound(pipeline, chunks, micro_batches, costs);
}

int least_peak_activations(const std::string& name, int pipeline, int chunks, int micro_batches,
                           int rank) {
  return built_entry(name).least_peak(pipeline, chunks, micro_batches, rank);
}

std::vector<std::optional<int>> groups_to_try(const std::string& name, int pipeline,
                                              int micro_batches, size_t most) {
  if (!built_entry(name).takes_chunks || micro_batches < pipeline) return {std::nullopt};
  const std::vector<int> legal = legal_groups(pipeline, micro_batches);
  return {legal.begin(), legal.begin() + static_cast<std::ptrdiff_t>(std::min(most, legal.size()))};
}

bool takes_chunks(const std::string& name) {
  return built_entry(name).takes_chunks;
}

std::vector<std::string> built_schedules() {
  std::vector<std::string> names;
  for (const Entry& entry : kRegistry) {
    if (entry.make != nullptr) names.emplace_back(entry.name);
  }
  return names;
}

std::vector<int> legal_groups(int pipeline, int micro_batches) {
  if (micro_batches <= pipeline) return {micro_batches};
  std::vector<int> groups;
  for (int g = pipeline; g <= micro_batches; ++g) {
    const int last = micro_batches % g;
    if (last == 0 || last >= pipeline) groups.push_back(g);
  }
  return groups;
}

}  // namespace trireme
