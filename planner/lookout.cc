#include "planner/lookout.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "planner/layout_text.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

PlacedLayout without_recomputation(PlacedLayout layout) {
  layout.recompute = Recompute::none;
  layout.recompute_ranks = 0;
  return layout;
}

}  // namespace

// What the schedules on one cut have in common.
struct Lookout::Cut {
  std::vector<Stage> stages;
  CutMemory memory;
  struct OrderTimes {  // with the ranks in one order
    Near near;
    CutTimes times;
  };
  std::vector<OrderTimes> times;  // once they are asked for
};

struct Lookout::Cuts {
  std::map<std::tuple<bool, bool, int>, Cut> fastest;  // by V placement, split backward and chunks
  std::optional<Cut> smaller;  // the last that gave way to what a schedule holds
};

Lookout::Lookout(const Job& job, const Cluster& cluster, const PlanOptions& options,
                 const std::vector<std::vector<size_t>>& sequences, ScheduleCache& schedules,
                 const std::shared_ptr<KnownTimings>& timings, Choices::Reject reject)
    : job_(job),
      cluster_(cluster),
      options_(options),
      sequences_(sequences),
      model_(job, cluster, options.profile.get(), options.schedule.get(), timings),
      trials_(model_, options, schedules),
      choices_(job, options.schedule.get(), std::move(reject)),
      replicas_(job, cluster, options, model_, trials_, choices_) {}

Look Lookout::look(const Candidate& candidate, const Enough& enough) {
  if (candidate.unequal()) return replicas_.look(candidate, enough);
  switch (candidate.known) {
    case Known::degrees:
      return open_options(candidate);
    case Known::options:
      return spread(candidate);
    case Known::spread:
      return find_paths(candidate, enough);
    case Known::paths:
      return complete(candidate, enough);
    case Known::cut:
      return load_links(candidate, enough);
    case Known::links:
      return simulate(candidate, enough);
    case Known::exact:
      return predict(candidate);
    case Known::shares:
      break;  // replicas that are alike share alike
  }
  return {};
}

const std::vector<Options>& Lookout::options(const Layout& degrees, size_t sequence) {
  const NodeGroup& nodes = cluster_.groups[sequences_[sequence].front()];
  return choices_.options(degrees, nodes.device.is_cpu());
}

const std::vector<Completion>& Lookout::completions(const Layout& degrees) {
  return choices_.completions(degrees);
}

// Gives the layout these options and the spread over its node groups that is fastest with them.
void Lookout::take(const Options& options, PlacedLayout& layout, size_t sequence) {
  apply(options, layout);
  if (sequences_[sequence].size() > 1) spread_fastest(layout, sequence, 0);
}

// Pipeline ranks.
int Lookout::room(const Layout& layout, size_t group) const {
  return pipeline_capacity(layout, cluster_.groups[group]);
}

// After so many runs, as many pipeline ranks as possible where a layer takes least.
void Lookout::spread_fastest(PlacedLayout& layout, size_t sequence, size_t settled) {
  const std::vector<size_t>& groups = sequences_[sequence];
  spread_by(layout, sequence, settled, [&](size_t a, size_t b) {
    return model_.layer_seconds(layout, groups[a]) < model_.layer_seconds(layout, groups[b]);
  });
}

// After so many runs, as many pipeline ranks as possible on the groups that come first by `less`,
// which compares places in the sequence.
template <class Less>
void Lookout::spread_by(PlacedLayout& layout, size_t sequence, size_t settled, Less less) const {
  const std::vector<size_t>& groups = sequences_[sequence];
  std::vector<Run>& runs = layout.placement.runs;
  runs.resize(settled);
  int left = layout.pipeline;
  for (const Run& run : runs) left -= run.pipeline_ranks;
  std::vector<size_t> best_first;
  for (size_t i = settled; i < groups.size(); ++i) {
    runs.push_back({groups[i], 1});
    best_first.push_back(i);
    --left;
  }
  std::stable_sort(best_first.begin(), best_first.end(), less);
  for (const size_t i : best_first) {
    const int more = std::min(left, room(layout, groups[i]) - 1);
    runs[i].pipeline_ranks += more;
    left -= more;
  }
}

// After so many runs, all pipeline ranks that there is room for.
PlacedLayout Lookout::with_room(PlacedLayout layout, size_t settled) const {
  std::vector<Run>& runs = layout.placement.runs;
  for (size_t i = settled; i < runs.size(); ++i) {
    runs[i].pipeline_ranks = room(layout, runs[i].group);
  }
  return layout;
}

// Of all ways to spread a layout over its node groups that begin with so many of its runs. With as
// many ranks as possible on the fastest the pipeline has done most at any time, but for what ranks
// wait for at first where a third group lies between others. Which group the ranks belong to that
// recompute is open, too: then none does, or, as measured figures may say anything, each takes the
// least of both.
double Lookout::bound_of_spreads(PlacedLayout layout, size_t sequence, size_t settled) {
  const std::vector<size_t>& groups = sequences_[sequence];
  if (groups.size() == 1) return model_.quick_bound(layout);
  const bool in_part = layout.recompute_ranks > 0;
  double least_share = 1;
  if (in_part) {
    const Layout recomputing = layout.degrees();
    layout = without_recomputation(std::move(layout));
    for (const size_t group : groups) {
      const double share =
          model_.layer_seconds(recomputing, group) / model_.layer_seconds(layout, group);
      least_share = std::min(least_share, share);
    }
    spread_fastest(layout, sequence, settled);
  }
  const LinkCost message = model_.least_message(layout);
  QuickBound bound = model_.quick_bounds(layout, message);
  if (in_part || groups.size() > 2) bound.waits = 0;
  bound.trips.clear();
  if (!in_part || !options_.profile) {
    bound.trips = model_.trips(with_room(layout, settled), message);
  }
  return least_share * bound.seconds(layout.micro_batches);
}

// Recomputation only adds to the work that the bound is made of, and sharding is no part of it; but
// figures that were measured may say anything.
Candidate Lookout::degrees(const Layout& layout, size_t sequence, int64_t order) {
  const std::vector<Options>& options = this->options(layout, sequence);
  Candidate candidate{placed_on(layout, sequences_[sequence].front()), sequence, order,
                      std::numeric_limits<double>::infinity()};
  for (const Options& choice : options) {
    const bool adds = choice.recompute != options.front().recompute ||
                      choice.recompute_ranks != options.front().recompute_ranks ||
                      choice.optimizer_sharding != options.front().optimizer_sharding;
    if (adds && !options_.profile) continue;
    take(choice, candidate.layout, sequence);
    candidate.seconds =
        std::min(candidate.seconds, bound_of_spreads(candidate.layout, sequence, 0));
  }
  return candidate;
}

// That some ranks recompute is the search's choice, where a layout does not fit without.
bool Lookout::recomputes_if_needed(const Layout& layout) const {
  return layout.recompute_ranks > 0 && !job_.pins.recompute_ranks;
}

std::vector<Candidate> Lookout::with_options(const Candidate& degrees) {
  std::vector<Candidate> result;
  Candidate candidate = degrees;
  candidate.known = sequences_[degrees.sequence].size() > 1 ? Known::options : Known::spread;
  for (const Options& choice : options(degrees.layout, degrees.sequence)) {
    take(choice, candidate.layout, degrees.sequence);
    const bool surely_needless = recomputes_if_needed(candidate.layout) &&
                                 model_.surely_fits(without_recomputation(candidate.layout));
    if (!surely_needless) {
      candidate.seconds = bound_of_spreads(candidate.layout, degrees.sequence, 0);
      result.push_back(candidate);
    }
    candidate.order += kMostCompletions * kMostSpreads;
  }
  return result;
}

// Several kinds of node have as much memory as the spread makes of them, which is still open.
Look Lookout::open_options(const Candidate& degrees) {
  Look look;
  for (Candidate& candidate : with_options(degrees)) {
    const bool may_fit = candidate.known == Known::options || options_.any_memory ||
                         lacks_on_average(candidate.layout) <= 0;
    if (may_fit) make_fit(candidate, look);
    (may_fit ? look.found : look.set_aside).push_back(std::move(candidate));
  }
  return look;
}

double Lookout::lacks_on_average(const PlacedLayout& layout) {
  return model_.average_resident(layout) - model_.average_device_memory(layout);
}

// The fullest rank has no less than the average, nor do the devices have more memory than when the
// open ranks lie where there is most.
double Lookout::lacks_at_least(const Candidate& candidate) {
  if (candidate.unequal() || candidate.known == Known::degrees) return 0;
  PlacedLayout layout = candidate.layout;
  const std::vector<size_t>& groups = sequences_[candidate.sequence];
  if (candidate.known == Known::options && groups.size() > 1) {
    spread_by(layout, candidate.sequence, candidate.settled, [&](size_t a, size_t b) {
      return cluster_.groups[groups[a]].device.memory_bytes >
             cluster_.groups[groups[b]].device.memory_bytes;
    });
  }
  return std::max(0.0, lacks_on_average(layout));
}

// So many pipeline ranks may be on the first run that is open: one or more are left for each of
// those behind it, and no more than they have room for.
Range Lookout::ranks_of_next_run(const Candidate& options) const {
  const std::vector<size_t>& groups = sequences_[options.sequence];
  int left = options.layout.pipeline, room_behind = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (i < options.settled) left -= options.layout.placement.runs[i].pipeline_ranks;
    if (i > options.settled) room_behind += room(options.layout, groups[i]);
  }
  const int behind = static_cast<int>(groups.size() - options.settled - 1);
  return {std::max(1, left - room_behind),
          std::min(room(options.layout, groups[options.settled]), left - behind) + 1};
}

// Settles one run more, the last two together. For the slower spreads, of which there may be
// millions, the candidate goes on to stand.
Look Lookout::spread(const Candidate& options) {
  const size_t at = options.settled;
  const bool all_settled = at + 2 == sequences_[options.sequence].size();
  const Range ranks_of_run = ranks_of_next_run(options);
  Look look;
  const LinkCost message = model_.least_message(options.layout);
  Candidate rest = options, next = options;
  rest.found = options.seconds * (1 + kGrowth * options.further);
  rest.further *= kGrowth;
  rest.seconds = std::numeric_limits<double>::infinity();
  next.further = kFirstLook;
  next.found = 0;
  next.settled = at + 1;
  next.numbers = std::max<int64_t>(1, options.numbers / std::max(1, ranks_of_run.size()));
  if (all_settled) next.known = Known::spread;
  bool all = true;
  for (int ranks = ranks_of_run.begin; ranks < ranks_of_run.end; ++ranks) {
    next.order = options.order + (ranks - ranks_of_run.begin) * next.numbers * kMostCompletions;
    next.layout.placement.runs[at].pipeline_ranks = ranks;
    spread_fastest(next.layout, options.sequence, next.settled);
    next.seconds = all_settled ? model_.quick_bound(next.layout, message)
                               : bound_of_spreads(next.layout, options.sequence, at + 1);
    make_fit(next, look);
    if (next.seconds > rest.found) {
      rest.seconds = std::min(rest.seconds, next.seconds);
      all = false;
    } else if (next.seconds > options.found) {
      look.found.push_back(next);
    }
  }
  if (!all) look.found.push_back(std::move(rest));
  return look;
}

// Where memory for its layers makes a candidate later, what does not fit may have been faster.
// What a schedule of the caller's own holds is not known here.
void Lookout::make_fit(Candidate& candidate, Look& look) {
  if (options_.any_memory || options_.schedule) return;
  const bool all_settled = candidate.known == Known::spread;
  const size_t runs = candidate.layout.placement.runs.size();
  const size_t settled = all_settled ? runs : candidate.settled;
  const double fitting = model_.fitting_bound(with_room(candidate.layout, settled), settled,
                                              least_held(candidate.layout));
  if (fitting <= candidate.seconds) return;
  if (look.missed.empty()) look.missed.push_back({candidate.seconds, 0, std::nullopt});
  look.missed.front().seconds = std::min(look.missed.front().seconds, candidate.seconds);
  candidate.seconds = fitting;
}

// Steps that are long hold no less than one of three rounds, so one serves for them all.
const LeastHeld& Lookout::least_held(const Layout& layout) {
  const int pipeline = layout.pipeline;
  const std::pair key(pipeline, std::min(layout.micro_batches, 3 * pipeline));
  const auto known = held_.find(key);
  if (known != held_.end()) return known->second;
  LeastHeld held(pipeline, key.second, job_.model.layers);
  for (const auto& [schedule, chunks] : choices_.possible_completions(pipeline)) {
    held.add(schedule, chunks);
  }
  return held_.emplace(key, std::move(held)).first->second;
}

Lookout::Cut Lookout::cut_of(const PlacedLayout& layout, std::vector<Stage> stages) const {
  CutMemory memory = model_.cut_memory(layout, stages);
  return {std::move(stages), std::move(memory), {}};
}

Lookout::Cut& Lookout::cut_for(const PlacedLayout& layout, Cuts& cuts) {
  const bool own = options_.schedule != nullptr;
  const auto key = std::make_tuple(!own && v_placed(layout.schedule),
                                   !own && splits_backward(layout.schedule), layout.chunks);
  auto known = cuts.fastest.find(key);
  if (known == cuts.fastest.end()) {
    known = cuts.fastest.emplace(key, cut_of(layout, model_.fastest_cut(layout))).first;
  }
  Cut& fastest = known->second;
  if (!model_.cut_may_shrink(layout) || model_.lacks_at_least(layout, fastest.memory) <= 0)
    return fastest;
  auto stages = model_.smaller_cut(layout, fastest.stages, fastest.memory);
  return stages ? cuts.smaller.emplace(cut_of(layout, *std::move(stages))) : fastest;
}

// Of all orders of ranks.
double Lookout::bound(PlacedLayout layout, Cut& cut) {
  if (cut.times.empty()) {
    CutTimes times = model_.cut_times(layout, cut.stages);
    for (const Near near : near_choices(layout, cluster_)) {
      if (near != layout.placement.near) {
        layout.placement.near = near;
        model_.move(layout, cut.stages, times);
      }
      cut.times.push_back({near, times});
    }
  }
  double least = std::numeric_limits<double>::infinity();
  for (const Cut::OrderTimes& order : cut.times) {
    layout.placement.near = order.near;
    least = std::min(least, model_.cut_bound(layout, order.times));
  }
  return least;
}

// It waits for its turn again if what messages and reductions take makes it later.
Look Lookout::find_paths(Candidate candidate, const Enough& enough) {
  candidate.known = Known::paths;
  if (options_.keep_rejections) return complete(std::move(candidate), enough);
  double least = std::numeric_limits<double>::infinity();
  PlacedLayout layout = candidate.layout;
  for (const Near near : near_choices(layout, cluster_)) {
    layout.placement.near = near;
    least = std::min(least, model_.network_bound(layout));
    if (least <= candidate.seconds) return complete(std::move(candidate), enough);
  }
  candidate.seconds = least;
  Look look;
  look.found.push_back(std::move(candidate));
  return look;
}

Look Lookout::complete(Candidate candidate, const Enough& enough) {
  Look look;
  if (!options_.any_memory && lacks_on_average(candidate.layout) > enough.missing) return look;
  const double least = candidate.seconds;
  candidate.known = Known::cut;
  Cuts cuts;
  for (const Completion& completion : completions(candidate.layout)) {
    candidate.layout.schedule = completion.schedule;
    candidate.layout.chunks = completion.chunks;
    candidate.seconds = least;
    Cut& cut = cut_for(candidate.layout, cuts);
    auto missed =
        options_.schedule
            ? miss(candidate, model_.memory(candidate.layout, cut.stages, *options_.schedule))
            : miss_at_least(candidate, cut.memory, enough);
    if (missed) {
      look.missed.push_back(*std::move(missed));
      continue;
    }
    candidate.seconds = std::max(least, bound(candidate.layout, cut));
    look.found.push_back(candidate);
    ++candidate.order;
  }
  return look;
}

// Where what any schedule of this name holds does not fit. It is looked at more closely only where
// it may be told, or where it fits but for what rounding makes of the sum.
std::optional<Look::Missed> Lookout::miss_at_least(const Candidate& candidate, const CutMemory& cut,
                                                   const Enough& enough) const {
  constexpr double kByte = 1;
  const double missing = model_.lacks_at_least(candidate.layout, cut);
  if (missing <= 0 || options_.any_memory) return std::nullopt;
  if (missing >= std::max(enough.missing, kByte) && !options_.keep_rejections) {
    return Look::Missed{candidate.seconds, missing, std::nullopt};
  }
  auto missed = miss(candidate, model_.least_memory(candidate.layout, cut));
  if (missed && missing >= kByte) missed->at_least = missing;
  return missed;
}

std::optional<Look::Missed> Lookout::miss(const Candidate& candidate,
                                          const std::vector<MemoryParts>& memory) const {
  const auto [rank, missing] = trials_.worst_miss(candidate.layout, memory);
  if (missing <= 0 || options_.any_memory) return std::nullopt;
  const int at = static_cast<int>(rank);
  return Look::Missed{candidate.seconds, 0,
                      Miss{candidate.layout.degrees(), at, memory[rank],
                           model_.device_memory(candidate.layout, at)}};
}

// What passes over shared links takes as long to find out as all that the bound was made of: it is
// of interest once the candidate has the least. It waits for its turn again if that makes it later.
Look Lookout::load_links(Candidate candidate, const Enough& enough) {
  const std::vector<Stage> stages = model_.cut(candidate.layout);
  double least = std::numeric_limits<double>::infinity();
  PlacedLayout layout = candidate.layout;
  for (const Near near : near_choices(layout, cluster_)) {
    layout.placement.near = near;
    const double seconds = candidate.seconds;
    const bool may_matter = model_.shared_links_at_most(layout, stages) > seconds;
    const double links = may_matter ? model_.shared_links_seconds(layout, stages, seconds) : 0;
    least = std::min(least, std::max(seconds, links));
    if (least == seconds) break;
  }
  candidate.known = Known::links;
  if (least == candidate.seconds) return simulate(std::move(candidate), enough);
  candidate.seconds = least;
  Look look;
  look.found.push_back(std::move(candidate));
  return look;
}

Look Lookout::simulate(Candidate candidate, const Enough& enough) {
  Look look;
  const bool if_needed = recomputes_if_needed(candidate.layout);
  if (if_needed && fits(without_recomputation(candidate.layout))) return look;
  const std::vector<Stage> stages = model_.cut(candidate.layout);
  if (candidate.further == kFirstLook) {
    look.first_simulation = true;
    const auto least = trials_.built(candidate.layout, trials_.groups_of(candidate.layout).front());
    auto missed = miss(candidate, model_.memory(candidate.layout, stages, *least));
    if (missed) {
      look.missed.push_back(*std::move(missed));
      return look;
    }
  }
  const double most = look_until(candidate, candidate.further, enough);
  if (find_best(candidate, stages, most)) {
    candidate.known = Known::exact;
  } else {
    candidate.seconds = most;
    candidate.further *= kGrowth;
  }
  look.found.push_back(std::move(candidate));
  return look;
}

// Among the orders of ranks, the first of those that are fastest. No answer: all surely take longer
// than `most`.
bool Lookout::find_best(Candidate& candidate, const std::vector<Stage>& stages, double most) {
  bool any = false;
  PlacedLayout layout = candidate.layout;
  for (const Near near : near_choices(layout, cluster_)) {
    layout.placement.near = near;
    const auto choice = trials_.fastest(layout, stages, any ? candidate.seconds : most);
    if (!choice || (any && choice->seconds >= candidate.seconds)) continue;
    any = true;
    candidate.layout.placement.near = near;
    candidate.seconds = choice->seconds;
    candidate.groups = {choice->group};
  }
  return any;
}

// With the schedule of its name that holds least. Layouts that differ only in how many ranks
// recompute ask the same.
bool Lookout::fits(PlacedLayout layout) {
  layout.placement.near = Near::data;  // as good as any: memory is the same
  const auto key = std::make_pair(describe(layout), layout.placement.runs);
  const auto known = fit_.find(key);
  if (known != fit_.end()) return known->second;
  const auto schedule = trials_.built(layout, trials_.groups_of(layout).front());
  const auto memory = model_.memory(layout, model_.cut(layout), *schedule);
  return fit_.emplace(key, trials_.worst_miss(layout, memory).second <= 0).first->second;
}

Look Lookout::predict(const Candidate& exact) {
  const std::vector<Stage> stages = model_.cut(exact.layout);
  const auto schedule = trials_.built(exact.layout, exact.groups.front());
  Look look;
  look.prediction = model_.predict(exact.layout, stages, schedule, exact.in_full);
  return look;
}

}  // namespace trireme
