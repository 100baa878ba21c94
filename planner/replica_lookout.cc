#include "planner/replica_lookout.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

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

// Whether the layout's schedule can be built for every share.
bool is_built(const Layout& layout) {
  return std::all_of(layout.shares.begin(), layout.shares.end(), [&](const Share& share) {
    return !why_not_searched(layout.schedule, layout.pipeline, share.micro_batches, layout.chunks);
  });
}

// With so many micro-batches for each replica of its sets.
PlacedLayout shared(PlacedLayout layout, const Way& way) {
  for (size_t set = 0; set < way.size(); ++set) {
    layout.shares[set].micro_batches = static_cast<int>(way[set]);
  }
  layout.micro_batches = layout.shares[layout.placement.set].micro_batches;
  return layout;
}

// From so many micro-batches on, more take no less time and memory.
std::optional<int> grows_from(const Layout& layout) {
  return schedule_grows_from(layout.schedule, layout.pipeline);
}

// The busier of those that two sets share.
void add_links(const std::vector<LinkTraffic>& of_set, std::vector<LinkTraffic>& links) {
  for (const LinkTraffic& link : of_set) {
    const auto same = std::find_if(links.begin(), links.end(),
                                   [&](const auto& known) { return known.link == link.link; });
    if (same == links.end()) {
      links.push_back(link);
    } else if (same->seconds < link.seconds) {
      *same = link;
    }
  }
}

}  // namespace

// What the schedules on one cut have in common.
struct ReplicaLookout::Cut {
  std::vector<Stage> stages;
  std::vector<CutMemory> memory;                  // by set
  std::vector<std::vector<CutTimes>> times = {};  // by order of ranks and set
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

Look ReplicaLookout::look(const Candidate& candidate) {
  switch (candidate.known) {
    case Known::degrees:
      return open(candidate);
    case Known::spread:
      return complete(candidate);
    case Known::shares:
      return share_out(candidate);
    case Known::exact:
      return predict(candidate);
    case Known::options:  // replicas lie whole on one kind
    case Known::cut:      // and are simulated while they are shared out to
      break;
  }
  return {};
}

// However the micro-batches are shared out, one of the sets is not done before: each has one or
// more for every replica, and all together have them all.
double ReplicaLookout::least_seconds(const std::vector<SetBound>& sets, double micro_batches) {
  const auto all_done = [&](double seconds) {
    double done = 0;
    for (const SetBound& set : sets) done += set.replicas * set.bound.micro_batches(seconds);
    return done >= micro_batches;
  };
  double late = 0;
  for (const SetBound& set : sets) late = std::max(late, set.bound.seconds(1));
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
    for (const SetBound& set : sets) {
      next = std::min(next, set.bound.seconds(set.bound.micro_batches(early) + 1));
    }
    early = next;
  }
  return early;
}

double ReplicaLookout::bound_of(const PlacedLayout& layout) {
  std::vector<SetBound> sets;
  for (const PlacedLayout& part : parts_of(layout)) {
    const QuickBound quick = model_.quick_bounds(part);
    SetBound& set = sets.emplace_back(SetBound{1.0 * part.replicas(), {}});
    set.bound.add(0, quick.slowest);
    set.bound.add(quick.waits, quick.average);
  }
  return least_seconds(sets, static_cast<double>(total_of(job_, layout)));
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
    cut.times.push_back(times);
  }
  return cut;
}

Look ReplicaLookout::complete(const Candidate& options) {
  Look look;
  Candidate candidate = options;
  candidate.known = Known::shares;
  const auto total = static_cast<double>(total_of(job_, options.layout));
  std::map<std::pair<bool, int>, Cut> cuts;  // by V placement and chunks
  for (const Completion& completion : choices_.possible_completions(options.layout.pipeline)) {
    ++candidate.order;
    candidate.layout.schedule = completion.schedule;
    candidate.layout.chunks = completion.chunks;
    const auto key = std::make_pair(v_placed(completion.schedule), completion.chunks);
    auto cut = cuts.find(key);
    if (cut == cuts.end()) cut = cuts.emplace(key, cut_of(candidate.layout)).first;
    if (!may_fit(candidate.layout, cut->second)) continue;  // though it has as few as can be
    double least = kNever;
    for (const std::vector<SetBound>& sets : bounds_of(candidate.layout, cut->second)) {
      least = std::min(least, least_seconds(sets, total));
    }
    candidate.seconds = std::max(options.seconds, least);
    look.found.push_back(candidate);
  }
  return look;
}

// By order of ranks.
std::vector<std::vector<ReplicaLookout::SetBound>> ReplicaLookout::bounds_of(
    const PlacedLayout& layout, const Cut& cut) const {
  std::vector<std::vector<SetBound>> bounds;
  for (const std::vector<CutTimes>& times : cut.times) {
    std::vector<SetBound>& sets = bounds.emplace_back();
    for (size_t i = 0; i < times.size(); ++i) {
      const double replicas = layout.placement.sets[i].replicas;
      sets.push_back({replicas, model_.bound_on_cut(layout, times[i])});
    }
  }
  return bounds;
}

// More micro-batches than a replica of each set has memory for, or as many as it has, whatever the
// schedule of that name holds. Of whole rounds through the pipeline, which groups are made of, more
// hold more; what is left over adds to that.
Way ReplicaLookout::most_that_may_fit(const PlacedLayout& layout, const Cut& cut) const {
  Way most;
  Layout tried = layout.degrees();
  for (size_t set = 0; set < cut.memory.size(); ++set) {
    const int64_t all = total_of(job_, layout) / layout.placement.sets[set].replicas;
    int64_t fit = 0, too_many = all / layout.pipeline + 1;  // rounds
    while (!options_.any_memory && too_many - fit > 1) {
      const int64_t between = fit + (too_many - fit) / 2;
      tried.micro_batches = static_cast<int>(between * layout.pipeline);
      (model_.lacks_at_least(tried, cut.memory[set]) <= 0 ? fit : too_many) = between;
    }
    most.push_back(std::min(all, too_many * layout.pipeline - 1));
  }
  return most;
}

bool ReplicaLookout::may_fit(const PlacedLayout& shared, const Cut& cut) const {
  if (options_.any_memory) return true;
  Layout tried = shared.degrees();
  for (size_t set = 0; set < cut.memory.size(); ++set) {
    tried.micro_batches = shared.shares[set].micro_batches;
    if (model_.lacks_at_least(tried, cut.memory[set]) > 0) return false;
  }
  return true;
}

// Of the ways to share the micro-batches out that may be done in less than so much more than the
// bound, the fastest.
Look ReplicaLookout::share_out(const Candidate& completed) {
  Look look;
  const Cut cut = cut_of(completed.layout);
  const auto orders = bounds_of(completed.layout, cut);
  const double begin = completed.further == kFirstLook ? 0 : completed.seconds;
  const double end = completed.seconds * (1 + completed.further);
  Way most = most_that_may_fit(completed.layout, cut);
  const double longest = seconds_of(orders, most);
  for (size_t i = 0; i < most.size(); ++i) {
    double in_time = 0;
    for (const auto& order : orders) in_time = std::max(in_time, order[i].bound.micro_batches(end));
    most[i] = static_cast<int64_t>(std::min(in_time, static_cast<double>(most[i])));
  }
  OpenShares shares(grows_from(completed.layout));
  for (Way& way :
       ways_to_share(total_of(job_, completed.layout), completed.layout.placement.sets, most)) {
    const double seconds = seconds_of(orders, way);
    if (seconds >= end) continue;
    const PlacedLayout layout = shared(completed.layout, way);
    if (!is_built(layout) || !may_fit(layout, cut)) continue;
    if (seconds >= begin) ++look.shared_out;
    std::vector<double> at_least = seconds_by_set(orders, way);
    shares.add({std::move(way), std::move(at_least), seconds});
  }
  Candidate& candidate = look.found.emplace_back(completed);
  if (find_best(candidate, cut.stages, shares, end, look)) {
    candidate.known = Known::exact;
  } else if (end <= longest) {
    candidate.seconds = end;
    candidate.further *= grows_from(candidate.layout) ? kGrowth : kShareGrowth;
  } else {
    look.found.pop_back();
  }
  return look;
}

// What a step takes at least in any order of ranks, when it is known who takes how many.
double ReplicaLookout::seconds_of(const std::vector<std::vector<SetBound>>& orders,
                                  const Way& way) {
  double least = kNever;
  for (const std::vector<SetBound>& sets : orders) {
    double longest = 0;
    for (size_t i = 0; i < sets.size(); ++i) {
      longest = std::max(longest, sets[i].bound.seconds(static_cast<double>(way[i])));
    }
    least = std::min(least, longest);
  }
  return least;
}

// What each set takes at least, in whatever order of ranks.
std::vector<double> ReplicaLookout::seconds_by_set(const std::vector<std::vector<SetBound>>& orders,
                                                   const Way& way) {
  std::vector<double> least(way.size(), kNever);
  for (const std::vector<SetBound>& sets : orders) {
    for (size_t i = 0; i < sets.size(); ++i) {
      least[i] = std::min(least[i], sets[i].bound.seconds(static_cast<double>(way[i])));
    }
  }
  return least;
}

// No answer: all ways surely take `end` or longer.
bool ReplicaLookout::find_best(Candidate& candidate, const std::vector<Stage>& stages,
                               OpenShares& shares, double end, Look& look) {
  const PlacedLayout completed = candidate.layout;
  const bool every = grows_from(completed).has_value();
  const double begin = candidate.further == kFirstLook ? 0 : candidate.seconds;
  double most = end;
  while (const auto open = shares.next()) {
    if (open->bound >= begin) ++look.first_simulations;
    const PlacedLayout layout = shared(completed, open->way);
    std::vector<double> least(open->way.size(), kNever);  // by set, of all orders of ranks
    for (const TimedOrder& order : timed_orders(layout, stages, most, every)) {
      double longest = 0;
      for (size_t set = 0; set < least.size(); ++set) {
        least[set] = std::min(least[set], order.sets[set].seconds);
        longest = std::max(longest, order.sets[set].seconds);
      }
      if (longest >= most) continue;
      most = longest;
      take(layout, order, candidate);
    }
    shares.learn(*open, least, most);
  }
  return most < end;
}

// By order of ranks what a step of each set takes: never where it surely takes longer than `most`
// or has no memory for it. Unless told of every set, one that is late is enough.
std::vector<ReplicaLookout::TimedOrder> ReplicaLookout::timed_orders(
    const PlacedLayout& layout, const std::vector<Stage>& stages, double most, bool every) {
  std::vector<PlacedLayout> parts = parts_of(layout);
  std::vector<bool> fit;
  for (const PlacedLayout& part : parts) {
    fit.push_back(fits(part, stages));
    if (!fit.back() && !every) return {};
  }
  std::vector<TimedOrder> orders;
  for (const Near near : near_choices(layout, cluster_)) {
    TimedOrder& order = orders.emplace_back(TimedOrder{near, std::vector<Timed>(parts.size())});
    for (size_t set = 0; set < parts.size(); ++set) {
      if (!fit[set]) continue;
      parts[set].placement.near = near;
      const auto choice = trials_.fastest(parts[set], stages, most);
      if (choice) {
        order.sets[set] = {choice->seconds, choice->group};
      } else if (!every) {
        break;
      }
    }
  }
  return orders;
}

// Whether a set has memory for what the shortest groups hold. Replicas whose weights are never the
// same between steps have no common step to share out.
bool ReplicaLookout::fits(const PlacedLayout& part, const std::vector<Stage>& stages) const {
  const auto least = trials_.built(part, trials_.groups_of(part).front());
  if (least->asynchronous) return false;
  if (options_.any_memory) return true;
  return trials_.worst_miss(part, model_.memory(part, stages, *least)).second <= 0;
}

// The slowest set first.
void ReplicaLookout::take(const PlacedLayout& layout, const TimedOrder& order,
                          Candidate& candidate) {
  std::vector<size_t> slowest_first(order.sets.size());
  std::iota(slowest_first.begin(), slowest_first.end(), size_t{0});
  std::stable_sort(slowest_first.begin(), slowest_first.end(), [&](size_t a, size_t b) {
    return order.sets[a].seconds > order.sets[b].seconds;
  });
  Layout degrees = layout.degrees();
  degrees.shares.clear();
  std::vector<ReplicaSet> sets;
  candidate.groups.clear();
  for (const size_t set : slowest_first) {
    degrees.shares.push_back(layout.shares[set]);
    sets.push_back(layout.placement.sets[set]);
    candidate.groups.push_back(order.sets[set].group);
  }
  candidate.layout = placed_on_sets(degrees, std::move(sets), order.near, 0);
  candidate.seconds = order.sets[slowest_first.front()].seconds;
}

// What bounds the step is the first set; memory is that of the replica that has least room, and
// links are the busiest of any set.
Look ReplicaLookout::predict(const Candidate& exact) {
  const std::vector<Stage> stages = cut(exact.layout);
  const std::vector<PlacedLayout> parts = parts_of(exact.layout);
  std::vector<Prediction> of_sets;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto schedule = trials_.built(parts[i], exact.groups[i]);
    of_sets.push_back(exact.in_full ? model_.predict(parts[i], stages, *schedule)
                                    : model_.predict_briefly(parts[i], stages, schedule));
  }
  Prediction whole = of_sets.front();
  double peak = 0;  // FLOP/s of the average device
  std::vector<PipelineRun> runs;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Prediction& of_set = of_sets[i];
    // The rate that the step's tokens come at over the share of the peak that it is.
    peak += of_set.model_tflops_per_device / of_set.mfu * parts[i].replicas() / parts[i].data;
    runs.push_back({parts[i].replicas(), of_set.step_seconds - of_set.seconds_after_ops(),
                    of_set.bubble_fraction});
    if (i == 0) continue;
    whole.other_shares.push_back(of_set);
    add_links(of_set.links, whole.links);
  }
  whole.mfu = whole.model_tflops_per_device / peak;
  whole.bubble_fraction = bubble_of_all(runs);
  whole.memory_bytes_per_pipeline_rank = memory_of_fullest(parts, of_sets);
  Look look;
  look.prediction = std::move(whole);
  return look;
}

std::vector<double> ReplicaLookout::memory_of_fullest(
    const std::vector<PlacedLayout>& parts, const std::vector<Prediction>& of_sets) const {
  std::vector<double> bytes;
  for (int rank = 0; rank < parts.front().pipeline; ++rank) {
    double least_room = kNever;
    bytes.push_back(0);
    for (size_t i = 0; i < parts.size(); ++i) {
      const double held = of_sets[i].memory_bytes_per_pipeline_rank[static_cast<size_t>(rank)];
      const double room = model_.device_memory(parts[i], rank) - held;
      if (room >= least_room) continue;
      least_room = room;
      bytes.back() = held;
    }
  }
  return bytes;
}

}  // namespace trireme
