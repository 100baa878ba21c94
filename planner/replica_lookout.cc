#include "planner/replica_lookout.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "planner/replica_prediction.h"
#include "planner/schedules/schedules.h"

namespace trireme {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// The ways to share out the micro-batches grow in number with every look that goes further.
constexpr double kShareGrowth = 2;

// The micro-batches in a step of all replicas.
int64_t total_of(const Job& job, const Layout& layout) {
  return job.training.global_batch / layout.micro_batch;
}

// With so many micro-batches for each replica of its sets.
PlacedLayout shared(PlacedLayout layout, const Way& way) {
  for (size_t set = 0; set < way.size(); ++set) {
    layout.shares[set].micro_batches = static_cast<int>(way[set]);
  }
  layout.micro_batches = layout.shares[layout.placement.set].micro_batches;
  return layout;
}

bool may_be(const Layout& layout) {
  return !why_not_searched(layout.schedule, layout.pipeline, layout.micro_batches, layout.chunks);
}

// From so many micro-batches on, more take no less time and memory.
std::optional<int> grows_from(const Layout& layout) {
  return schedule_grows_from(layout.schedule, layout.pipeline);
}

}  // namespace

// With the ranks in one order.
struct ReplicaLookout::Order {
  Near near = Near::data;
  std::vector<CutTimes> times;  // by set
};

// What the schedules on one cut have in common.
struct ReplicaLookout::Cut {
  std::vector<Stage> stages;
  std::vector<CutMemory> memory;  // by set
  std::vector<Order> orders;
};

std::vector<Candidate> ReplicaLookout::degrees(int64_t order) {
  std::vector<Candidate> found;
  // A schedule of the caller's own has one number of micro-batches; sums of unequal replicas have
  // no order of their own.
  if (options_.schedule || job_.training.reduction == Reduction::ordered) return found;
  for (const std::vector<size_t>& groups : group_sequences(cluster_)) {
    if (groups.size() > 1 && std::is_sorted(groups.begin(), groups.end())) enumerate(groups, found);
  }
  for (Candidate& candidate : found) {
    candidate.order = order;
    order += kMostOfDegrees;
  }
  return found;
}

void ReplicaLookout::enumerate(const std::vector<size_t>& groups, std::vector<Candidate>& found) {
  int devices = 0;  // of a node, what tensor groups of all kinds divide
  int domain = std::numeric_limits<int>::max();
  for (const size_t group : groups) {
    devices = std::gcd(devices, cluster_.groups[group].devices);
    domain = std::min(domain, link_domain(cluster_.groups[group]));
  }
  const Pins& pins = job_.pins;
  const std::vector<int> micro_batches = divisors(job_.training.global_batch);
  for (int tensor = 1; tensor <= std::min({devices, domain, job_.model.kv_heads}); ++tensor) {
    if (devices % tensor != 0 || tensor != pins.tensor.value_or(tensor)) continue;
    for (int pipeline = pins.pipeline.value_or(1);
         pipeline <= pins.pipeline.value_or(pipeline) &&
         fewest_layers(pipeline, pins.chunks.value_or(1)) <= job_.model.layers;
         ++pipeline) {
      Layout layout;
      if (pins.schedule) layout.schedule = *pins.schedule;
      layout.tensor = tensor;
      layout.pipeline = pipeline;
      const bool room = std::all_of(groups.begin(), groups.end(), [&](size_t group) {
        return replica_capacity(layout, cluster_.groups[group]) > 0;
      });
      if (!room) break;
      for (const int micro_batch : micro_batches) {
        if (micro_batch != pins.micro_batch.value_or(micro_batch)) continue;
        layout.micro_batch = micro_batch;
        if (auto candidate = degrees_on(groups, layout)) found.push_back(*std::move(candidate));
      }
    }
  }
}

// With as few micro-batches as replicas may have; nothing where there are not even these.
std::optional<Candidate> ReplicaLookout::degrees_on(const std::vector<size_t>& groups,
                                                    const Layout& of_replica) {
  Layout layout = of_replica;
  layout.data = 0;
  std::vector<ReplicaSet> sets;
  for (const size_t group : groups) {
    sets.push_back({group, replica_capacity(layout, cluster_.groups[group])});
    layout.shares.push_back({sets.back().replicas, 1});
    layout.data += sets.back().replicas;
  }
  if (layout.data != job_.pins.data.value_or(layout.data)) return std::nullopt;
  if (total_of(job_, layout) < layout.data) return std::nullopt;
  Candidate candidate{placed_on_sets(layout, std::move(sets), Near::data, 0), 0, 0, kNever};
  const std::vector<Options>& options = choices_.options(layout, false);
  for (const Options& choice : options) {
    // Recomputation only adds to the work, and sharding is no part of it; but figures that were
    // measured may say anything.
    const bool adds = choice.recompute != options.front().recompute ||
                      choice.optimizer_sharding != options.front().optimizer_sharding;
    if (choice.recompute_ranks > 0 || (adds && !options_.profile)) continue;
    apply(choice, candidate.layout);
    candidate.seconds = std::min(candidate.seconds, bound_of(candidate.layout));
  }
  return candidate;
}

int64_t ReplicaLookout::layouts(const Candidate& degrees) {
  const std::vector<Options>& options = choices_.options(degrees.layout, false);
  const auto on_all_ranks =
      std::count_if(options.begin(), options.end(),
                    [](const Options& choice) { return choice.recompute_ranks == 0; });
  return on_all_ranks *
         static_cast<int64_t>(choices_.possible_completions(degrees.layout.pipeline).size());
}

Look ReplicaLookout::look(const Candidate& candidate, const Enough& enough) {
  switch (candidate.known) {
    case Known::degrees:
      return open(candidate);
    case Known::spread:
      return complete(candidate);
    case Known::shares:
      return share_out(candidate, enough);
    case Known::exact:
      return predict(candidate);
    case Known::options:  // replicas lie whole on one kind
    case Known::paths:    // likewise
    case Known::cut:      // and are simulated while they are shared out to
    case Known::links:
      break;
  }
  return {};
}

// However the micro-batches are shared out, one of the sets is not done before: each has one or
// more for every replica, and all together have them all.
double ReplicaLookout::least_seconds(const std::vector<ReplicaSet>& sets,
                                     const std::vector<StepBound>& bounds, double micro_batches) {
  const auto all_done = [&](double seconds) {
    double done = 0;
    for (size_t set = 0; set < sets.size(); ++set) {
      done += sets[set].replicas * bounds[set].micro_batches(seconds);
    }
    return done >= micro_batches;
  };
  double late = 0;
  for (const StepBound& bound : bounds) late = std::max(late, bound.seconds(1));
  double early = late;
  while (!all_done(late)) {
    early = late;
    late *= 2;
  }
  constexpr double kClose = 1.0 / 1024;
  while (late - early > kClose * early) {
    const double between = (early + late) / 2;
    (all_done(between) ? late : early) = between;
  }
  while (!all_done(early)) {
    double next = kNever;
    for (const StepBound& bound : bounds) {
      next = std::min(next, bound.seconds(bound.micro_batches(early) + 1));
    }
    early = next;
  }
  return early;
}

double ReplicaLookout::bound_of(const PlacedLayout& layout) {
  std::vector<StepBound> bounds;
  for (const PlacedLayout& part : parts_of(layout)) {
    const QuickBound quick = model_.quick_bounds(part);
    StepBound& bound = bounds.emplace_back();
    bound.add(0, quick.slowest);
    bound.add(quick.waits, quick.average);
    // No rank of a kind is faster than others.
    for (const Trip& trip : quick.trips) bound.add(trip.once, trip.each);
  }
  return least_seconds(layout.placement.sets, bounds, static_cast<double>(total_of(job_, layout)));
}

bool ReplicaLookout::resident_fits(const PlacedLayout& layout) {
  if (options_.any_memory) return true;
  const std::vector<PlacedLayout> parts = parts_of(layout);
  return std::all_of(parts.begin(), parts.end(), [&](const PlacedLayout& part) {
    return model_.average_resident(part) <= model_.average_device_memory(part);
  });
}

Look ReplicaLookout::open(const Candidate& degrees) {
  Look look;
  Candidate candidate = degrees;
  candidate.known = Known::spread;
  for (const Options& choice : choices_.options(degrees.layout, false)) {
    if (choice.recompute_ranks > 0) continue;
    apply(choice, candidate.layout);
    if (resident_fits(candidate.layout)) {
      candidate.seconds = bound_of(candidate.layout);
      look.found.push_back(candidate);
    }
    candidate.order += kMostCompletions * kMostSpreads;
  }
  return look;
}

std::vector<Stage> ReplicaLookout::cut(const PlacedLayout& layout) {
  const auto layer_seconds = [&](const ReplicaSet& set) {
    return std::make_pair(model_.layer_seconds(layout, set.group), set.group);
  };
  const std::vector<ReplicaSet>& sets = layout.placement.sets;
  const auto slowest = std::max_element(
      sets.begin(), sets.end(),
      [&](const auto& a, const auto& b) { return layer_seconds(a) < layer_seconds(b); });
  return model_.fastest_cut(parts_of(layout)[static_cast<size_t>(slowest - sets.begin())]);
}

ReplicaLookout::Cut ReplicaLookout::cut_of(const PlacedLayout& layout) {
  Cut cut{this->cut(layout), {}, {}};
  std::vector<PlacedLayout> parts = parts_of(layout);
  std::vector<CutTimes> times;
  for (PlacedLayout& part : parts) {
    part.micro_batches = 1;  // what holds least
    cut.memory.push_back(model_.cut_memory(part, cut.stages));
    times.push_back(model_.cut_times(part, cut.stages));
  }
  for (const Near near : near_choices(layout, cluster_)) {
    for (size_t set = 0; set < parts.size(); ++set) {
      if (near == parts[set].placement.near) continue;
      parts[set].placement.near = near;
      model_.move(parts[set], cut.stages, times[set]);
    }
    cut.orders.push_back({near, times});
  }
  return cut;
}

Look ReplicaLookout::complete(const Candidate& options) {
  Look look;
  Candidate candidate = options;
  candidate.known = Known::shares;
  const auto total = static_cast<double>(total_of(job_, options.layout));
  std::map<std::tuple<bool, bool, int>, Cut> cuts;  // by V placement, split backward and chunks
  for (const Completion& completion : choices_.possible_completions(options.layout.pipeline)) {
    ++candidate.order;
    candidate.layout.schedule = completion.schedule;
    candidate.layout.chunks = completion.chunks;
    const auto key = std::make_tuple(v_placed(completion.schedule),
                                     splits_backward(completion.schedule), completion.chunks);
    auto cut = cuts.find(key);
    if (cut == cuts.end()) cut = cuts.emplace(key, cut_of(candidate.layout)).first;
    // It has as few micro-batches as can be.
    const std::vector<CutMemory>& memory = cut->second.memory;
    const bool may_fit = std::all_of(memory.begin(), memory.end(), [&](const CutMemory& of_set) {
      return options_.any_memory || model_.lacks_at_least(candidate.layout, of_set) <= 0;
    });
    if (!may_fit) continue;
    double least = kNever;
    for (const Order& order : cut->second.orders) {
      const std::vector<StepBound> bounds = bounds_of(candidate.layout, order);
      least = std::min(least, least_seconds(candidate.layout.placement.sets, bounds, total));
    }
    candidate.seconds = std::max(options.seconds, least);
    look.found.push_back(candidate);
  }
  return look;
}

// By set.
std::vector<StepBound> ReplicaLookout::bounds_of(const PlacedLayout& layout,
                                                 const Order& order) const {
  std::vector<StepBound> bounds;
  for (const CutTimes& times : order.times) bounds.push_back(model_.bound_on_cut(layout, times));
  return bounds;
}

// More micro-batches than a replica of each set has memory for, or as many as it has. Of whole
// rounds through the pipeline, which groups are made of, more hold more; what is left over adds to
// that. What a schedule of that name holds at least is known without building it, and most hold no
// more than that, or than what they hold of few rounds.
Way ReplicaLookout::most_that_may_fit(const PlacedLayout& layout, const Cut& cut) {
  constexpr int64_t kFewRounds = 3;
  Way most;
  for (PlacedLayout& part : parts_of(layout)) {
    const size_t set = part.placement.set;
    const int64_t all = total_of(job_, layout) / layout.placement.sets[set].replicas;
    int64_t fit = 0, too_many = all / layout.pipeline + 1;  // rounds
    while (!options_.any_memory && too_many - fit > 1) {
      const int64_t between = fit + (too_many - fit) / 2;
      part.micro_batches = static_cast<int>(between * layout.pipeline);
      (model_.lacks_at_least(part, cut.memory[set]) <= 0 ? fit : too_many) = between;
    }
    for (int64_t few = std::min(fit, kFewRounds); few > 0; --few) {
      part.micro_batches = static_cast<int>(few * layout.pipeline);
      if (!may_be(part) || fits(part, cut.stages)) break;
      too_many = few;
    }
    most.push_back(std::min(all, too_many * layout.pipeline - 1));
  }
  return most;
}

// Of the ways to share the micro-batches out that may be done in less than so much more than the
// bound, the fastest in any order of ranks.
Look ReplicaLookout::share_out(const Candidate& completed, const Enough& enough) {
  Look look;
  look.first_simulation = completed.further == kFirstLook;
  const Cut cut = cut_of(completed.layout);
  const Way most = most_that_may_fit(completed.layout, cut);
  std::vector<std::vector<StepBound>> bounds_by_order;
  for (const Order& order : cut.orders) {
    bounds_by_order.push_back(bounds_of(completed.layout, order));
  }
  const double further = searched_further(completed, bounds_by_order, most);
  const double end = look_until(completed, further, enough);
  double least = end, longest = 0;
  std::vector<double> excess(most.size(), 0);  // by set: much the same in all orders
  Candidate& candidate = look.found.emplace_back(completed);
  for (size_t order = 0; order < cut.orders.size(); ++order) {
    const std::vector<StepBound>& bounds = bounds_by_order[order];
    for (size_t set = 0; set < bounds.size(); ++set) {
      longest = std::max(longest, bounds[set].seconds(static_cast<double>(most[set])));
    }
    PlacedLayout layout = completed.layout;
    layout.placement.near = cut.orders[order].near;
    std::vector<Shares::Set> sets = sets_within(layout, cut, bounds, most, end);
    for (size_t set = 0; set < sets.size(); ++set) sets[set].excess = excess[set];
    Shares shares(total_of(job_, layout), sets, grows_from(layout));
    if (find_best(layout, cut.stages, shares, least, candidate)) least = candidate.seconds;
    for (size_t set = 0; set < excess.size(); ++set) excess[set] = shares.excess(set);
  }
  if (least < end) {
    candidate.known = Known::exact;
  } else if (end <= longest) {
    candidate.seconds = end;
    candidate.further = further * (grows_from(candidate.layout) ? kGrowth : kShareGrowth);
  } else {
    look.found.pop_back();
  }
  return look;
}

// As far as the candidate says, or less where that would be too many numbers of micro-batches more
// than those that may be done within the bound.
double ReplicaLookout::searched_further(const Candidate& completed,
                                        const std::vector<std::vector<StepBound>>& bounds_by_order,
                                        const Way& most) const {
  constexpr double kLeast = 1e-6;
  constexpr int64_t kMostNumbers = 512;
  double further = completed.further;
  for (const std::vector<StepBound>& bounds : bounds_by_order) {
    const auto numbers_by = [&](double end) {
      int64_t sum = 0;
      for (const auto& [fewest, last] : numbers_within(completed.layout, bounds, most, end)) {
        sum += last - fewest + 1;
      }
      return sum;
    };
    const int64_t most_numbers = numbers_by(completed.seconds) + kMostNumbers;
    while (further > kLeast && numbers_by(completed.seconds * (1 + further)) > most_numbers) {
      further /= 2;
    }
  }
  return further;
}

// The fewest and most micro-batches of each set that may be done by then, while the others do
// theirs; the most are fewer than the fewest where they cannot do them all.
std::vector<std::pair<int64_t, int64_t>> ReplicaLookout::numbers_within(
    const PlacedLayout& layout, const std::vector<StepBound>& bounds, const Way& most,
    double end) const {
  const std::vector<ReplicaSet>& sets = layout.placement.sets;
  std::vector<std::pair<int64_t, int64_t>> numbers;
  int64_t room = 0;
  for (size_t set = 0; set < sets.size(); ++set) {
    const double in_time = bounds[set].micro_batches(end);
    const auto last = static_cast<int64_t>(std::min(in_time, static_cast<double>(most[set])));
    numbers.emplace_back(1, last);
    room += sets[set].replicas * last;
  }
  for (size_t set = 0; set < sets.size(); ++set) {
    const int64_t replicas = sets[set].replicas;
    auto& [fewest, last] = numbers[set];
    const int64_t left = total_of(job_, layout) - (room - replicas * last);
    fewest = std::max<int64_t>(1, (left + replicas - 1) / replicas);
  }
  return numbers;
}

// Never where a number cannot be, or has no memory whatever the schedule of that name holds.
std::vector<Shares::Set> ReplicaLookout::sets_within(const PlacedLayout& layout, const Cut& cut,
                                                     const std::vector<StepBound>& bounds,
                                                     const Way& most, double end) const {
  std::vector<Shares::Set> sets;
  Layout tried = layout.degrees();
  for (const auto& [fewest, last] : numbers_within(layout, bounds, most, end)) {
    const size_t at = sets.size();
    Shares::Set& set = sets.emplace_back();
    set.replicas = layout.placement.sets[at].replicas;
    set.fewest = fewest;
    for (int64_t number = fewest; number <= last; ++number) {
      tried.micro_batches = static_cast<int>(number);
      const bool may_fit = may_be(tried) && (options_.any_memory ||
                                             model_.lacks_at_least(tried, cut.memory[at]) <= 0);
      set.seconds.push_back(may_fit ? bounds[at].seconds(static_cast<double>(number)) : kNever);
    }
  }
  return sets;
}

// In one order of ranks. No answer: all ways surely take `most` or longer.
bool ReplicaLookout::find_best(const PlacedLayout& layout, const std::vector<Stage>& stages,
                               Shares& shares, double most, Candidate& found) {
  const bool grows = grows_from(layout).has_value();
  std::map<std::pair<size_t, int64_t>, Timed> known;  // by set and micro-batches
  while (const auto way = shares.next(most)) {
    const PlacedLayout tried = shared(layout, *way);
    std::vector<Timed> timed;
    bool all_known = true;
    for (const PlacedLayout& part : parts_of(tried)) {
      const size_t set = part.placement.set;
      const auto [place, is_new] = known.try_emplace({set, part.micro_batches});
      if (is_new) {
        place->second = timed_step(part, stages, most);
        shares.learn(set, part.micro_batches, place->second.seconds, most);
        all_known = false;
        if (!grows && place->second.seconds == kNever) break;  // the others may do without
      }
      timed.push_back(place->second);
    }
    if (!all_known) continue;
    take(tried, timed, found);
    return true;
  }
  return false;
}

// With the schedule of its name that holds least.
bool ReplicaLookout::fits(const PlacedLayout& part, const std::vector<Stage>& stages) {
  if (options_.any_memory) return true;
  const auto least = trials_.built(part, trials_.groups_of(part).front());
  return trials_.worst_miss(part, model_.memory(part, stages, *least)).second <= 0;
}

// Never: it surely takes longer than `most`, or has no memory for what the shortest groups hold.
// Nor do replicas share out a step in common whose weights are never the same between steps.
ReplicaLookout::Timed ReplicaLookout::timed_step(const PlacedLayout& part,
                                                 const std::vector<Stage>& stages, double most) {
  if (trials_.built(part, trials_.groups_of(part).front())->asynchronous) return {};
  if (!fits(part, stages)) return {};
  const auto choice = trials_.fastest(part, stages, most);
  return choice ? Timed{choice->seconds, choice->group} : Timed{};
}

// The slowest set first.
void ReplicaLookout::take(const PlacedLayout& layout, const std::vector<Timed>& timed,
                          Candidate& candidate) {
  std::vector<size_t> slowest_first(timed.size());
  std::iota(slowest_first.begin(), slowest_first.end(), size_t{0});
  std::stable_sort(slowest_first.begin(), slowest_first.end(),
                   [&](size_t a, size_t b) { return timed[a].seconds > timed[b].seconds; });
  Layout degrees = layout.degrees();
  degrees.shares.clear();
  std::vector<ReplicaSet> sets;
  candidate.groups.clear();
  for (const size_t set : slowest_first) {
    degrees.shares.push_back(layout.shares[set]);
    sets.push_back(layout.placement.sets[set]);
    candidate.groups.push_back(timed[set].group);
  }
  candidate.layout = placed_on_sets(degrees, std::move(sets), layout.placement.near, 0);
  candidate.seconds = timed[slowest_first.front()].seconds;
}

Look ReplicaLookout::predict(const Candidate& exact) {
  const std::vector<Stage> stages = cut(exact.layout);
  const std::vector<PlacedLayout> parts = parts_of(exact.layout);
  std::vector<Prediction> of_sets;
  for (size_t set = 0; set < parts.size(); ++set) {
    const auto schedule = trials_.built(parts[set], exact.groups[set]);
    of_sets.push_back(model_.predict(parts[set], stages, schedule, exact.in_full));
  }
  Look look;
  look.prediction = prediction_of_all(model_, parts, of_sets);
  return look;
}

}  // namespace trireme
