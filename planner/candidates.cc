#include "planner/candidates.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <string>

#include "planner/layer_cut.h"
#include "planner/plan/limits.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"

namespace trireme {

std::vector<int> divisors(int n) {
  std::vector<int> small, large;
  for (int d = 1; static_cast<int64_t>(d) * d <= n; ++d) {
    if (n % d != 0) continue;
    small.push_back(d);
    if (d != n / d) large.push_back(n / d);
  }
  small.insert(small.end(), large.rbegin(), large.rend());
  return small;
}

int link_domain(const NodeGroup& nodes) {
  return nodes.link == NodeLink::nvlink_pairs ? std::min(2, nodes.devices) : nodes.devices;
}

namespace {

Error contradiction(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

// As messages name it; empty where it is left open.
std::string pin(const Pins& pins, std::string_view key, std::optional<int> value) {
  return value ? name_of_pin(pins, key, std::to_string(*value)) : "";
}

std::string join(const std::string& a, const std::string& b) {
  return a + (a.empty() || b.empty() ? "" : " ") + b;
}

// The fewest stages per pipeline rank that the pins leave open.
int pinned_chunks(const Pins& pins) {
  if (pins.chunks) return *pins.chunks;
  return pins.schedule ? fixed_chunks(*pins.schedule).value_or(1) : 1;
}

// Whether replicas that have one copy of the optimizer's state among them make up all.
bool shards_fill(const Job& job, int data) {
  const int ranks = job.execution.sharding_ranks.value_or(0);
  return ranks == 0 || ranks >= data || data % ranks == 0;
}

class Enumeration {
 public:
  Enumeration(const Job& job, const std::vector<const NodeGroup*>& kinds,
              const CandidateSinks& sinks)
      : job_(job), pins_(job.pins), kinds_(kinds), sinks_(sinks) {
    for (const NodeGroup* nodes : kinds) {
      const int64_t more = static_cast<int64_t>(nodes->hosts.size()) * nodes->devices;
      devices_ = static_cast<int>(std::min<int64_t>(devices_ + more, limits::kRanks));
      node_devices_ = std::gcd(node_devices_, nodes->devices);
      link_domain_ = std::min(link_domain_, link_domain(*nodes));
    }
  }

  void run() {
    for (const int tensor : tensor_degrees()) with_tensor(tensor);
  }

 private:
  void reject(const std::string& layout, const std::string& reason) const {
    if (sinks_.rejection) sinks_.rejection(layout, reason);
  }

  std::vector<int> tensor_degrees() const {
    if (pins_.tensor) return {*pins_.tensor};
    std::vector<int> degrees;
    for (const int t : divisors(node_devices_)) {
      if (t > link_domain_) {
        reject(fmt::format("tensor={}", t),
               fmt::format("only {} devices of a node share its fastest links", link_domain_));
      } else if (t > job_.model.kv_heads) {
        reject(fmt::format("tensor={}", t),
               fmt::format("the model has {} key-value heads, so {} ranks would have none",
                           job_.model.kv_heads, t - job_.model.kv_heads));
      } else {
        degrees.push_back(t);
      }
    }
    return degrees;
  }

  void with_tensor(int tensor) {
    if (tensor > node_devices_) {
      return reject(
          fmt::format("tensor={}", tensor),
          fmt::format("tensor ranks stay inside a node, which has {} devices", node_devices_));
    }
    const int shortest = std::max(1, pins_.recompute_ranks.value_or(0));  // that has as many ranks
    for (int p = pins_.pipeline.value_or(shortest); p <= pins_.pipeline.value_or(devices_ / tensor);
         ++p) {
      const std::string name = fmt::format("tensor={} pipeline={}", tensor, p);
      if (fewest_layers(p, pinned_chunks(pins_)) > job_.model.layers) {
        reject(name, fmt::format("{} layers are too few for this and any longer pipeline",
                                 job_.model.layers));
        break;
      }
      if (static_cast<int64_t>(tensor) * p * pins_.data.value_or(1) > devices_) {
        reject(name,
               fmt::format("needs {} devices or more, there are {}",
                           static_cast<int64_t>(tensor) * p * pins_.data.value_or(1), devices_));
        break;
      }
      with_pipeline(tensor, p);
    }
  }

  void with_pipeline(int tensor, int pipeline) {
    const int most = devices_ / (tensor * pipeline);
    if (!pins_.data && job_.training.global_batch % most != 0) {
      reject(fmt::format("tensor={} pipeline={} data={}", tensor, pipeline, most),
             fmt::format("global_batch {} is not divisible by {} replicas",
                         job_.training.global_batch, most));
    }
    for (const int data :
         pins_.data ? std::vector<int>{*pins_.data} : divisors(job_.training.global_batch)) {
      if (data > most) break;
      if (job_.training.global_batch % data != 0) {
        reject(fmt::format("tensor={} pipeline={} data={}", tensor, pipeline, data),
               fmt::format("global_batch {} is not divisible by {} replicas of one kind",
                           job_.training.global_batch, data));
        break;
      }
      if (pins_.optimizer_sharding == 1 && !shards_fill(job_, data)) {
        reject(fmt::format("tensor={} pipeline={} data={}", tensor, pipeline, data),
               fmt::format("sharding_ranks={} do not divide these replicas",
                           *job_.execution.sharding_ranks));
        continue;
      }
      if (!kinds_hold(tensor, pipeline, data)) continue;
      const int ranks = tensor * pipeline * data;
      if (node_devices_ % tensor != 0 && ranks > node_devices_) {
        reject(fmt::format("tensor={} pipeline={} data={}", tensor, pipeline, data),
               fmt::format(
                   "tensor={} does not divide a node's {} devices, so a tensor group would span "
                   "nodes",
                   tensor, node_devices_));
        continue;
      }
      const int share = job_.training.global_batch / data;
      if (pins_.micro_batch && share % *pins_.micro_batch != 0) {
        reject(fmt::format("tensor={} pipeline={} data={} micro_batch={}", tensor, pipeline, data,
                           *pins_.micro_batch),
               fmt::format("micro-batches of {} do not divide the {} samples of a replica",
                           *pins_.micro_batch, share));
        continue;
      }
      for (const int micro_batch :
           pins_.micro_batch ? std::vector<int>{*pins_.micro_batch} : divisors(share)) {
        with_batch(tensor, pipeline, data, micro_batch);
      }
    }
  }

  // Every kind holds a pipeline rank or more, and all together the whole pipeline.
  bool kinds_hold(int tensor, int pipeline, int data) const {
    if (kinds_.size() == 1) return true;
    Layout layout;
    layout.tensor = tensor;
    layout.data = data;
    int capacity = 0;
    for (const NodeGroup* nodes : kinds_) {
      const int of_kind = pipeline_capacity(layout, *nodes);
      if (of_kind == 0) return false;
      capacity += of_kind;
    }
    return capacity >= pipeline && pipeline >= static_cast<int>(kinds_.size());
  }

  void with_batch(int tensor, int pipeline, int data, int micro_batch) {
    Layout layout;
    if (pins_.schedule) layout.schedule = *pins_.schedule;
    layout.tensor = tensor;
    layout.pipeline = pipeline;
    layout.data = data;
    layout.micro_batch = micro_batch;
    layout.micro_batches = job_.training.global_batch / (data * micro_batch);
    sinks_.layout(layout);
  }

  const Job& job_;
  const Pins& pins_;
  const std::vector<const NodeGroup*>& kinds_;
  const CandidateSinks& sinks_;
  int devices_ = 0;
  int node_devices_ = 0;  // what tensor groups of all kinds divide
  int link_domain_ = std::numeric_limits<int>::max();
};

// Selective recomputation repeats what only unfused attention stores.
std::vector<Recompute> recomputes(const Job& job, bool cpu) {
  if (job.pins.recompute) return {*job.pins.recompute};
  const bool some_do = job.pins.recompute_ranks.value_or(0) > 0;
  if (cpu && !some_do) return {Recompute::none};
  std::vector<Recompute> result;
  if (!some_do) result.push_back(Recompute::none);
  if (job.execution.attention == Attention::unfused) result.push_back(Recompute::selective);
  result.push_back(Recompute::full);
  return result;
}

// With schedules whose first ranks hold most activations, these may be all that need it.
std::vector<int> recompute_ranks(const Job& job, Recompute recompute, int pipeline) {
  if (recompute == Recompute::none) return {0};
  if (const auto pinned = job.pins.recompute_ranks) return {*pinned < pipeline ? *pinned : 0};
  std::vector<int> result;
  constexpr int kParts = 8;
  for (int part = 1; part < kParts && !job.pins.recompute; ++part) {
    const int ranks = (pipeline * part + kParts - 1) / kParts;
    if (ranks < pipeline && (result.empty() || ranks > result.back())) result.push_back(ranks);
  }
  result.push_back(0);
  return result;
}

std::vector<bool> sequence_choices(const Job& job, bool cpu, int tensor) {
  if (job.pins.sequence_parallel) return {*job.pins.sequence_parallel};
  if (cpu || tensor == 1) return {false};
  return {false, true};
}

std::vector<int> sharding_choices(const Job& job, bool cpu, int data) {
  if (job.pins.optimizer_sharding) return {*job.pins.optimizer_sharding};
  if (cpu || data == 1 || !shards_fill(job, data)) return {0};
  return {0, 1};
}

// On one pipeline rank all schedules do the same work in the same time, and 1F1B holds least.
bool worth_a_look(const Pins& pins, int pipeline, const std::string& schedule) {
  return pipeline > 1 || pins.schedule || pins.chunks || schedule == "1f1b";
}

// The stages per pipeline rank to try for one schedule, none where it is not to be tried. What is
// another schedule with one of them is that one, unless it is pinned.
Range chunk_choices(const Job& job, int pipeline, const std::string& schedule) {
  const std::optional<int> fixed = fixed_chunks(schedule);
  const int fewest = !job.pins.schedule && same_with_one_chunk(schedule) ? 2 : 1;
  const int first = job.pins.chunks.value_or(fixed.value_or(fewest));
  if (fixed && first != *fixed) return {};
  if (first < fewest) return {};
  if (fewest_layers(pipeline, first) > job.model.layers) return {};
  if (fixed || job.pins.chunks || pipeline == 1) return {first, first + 1};
  return {first, std::min((job.model.layers + 2) / pipeline, limits::kChunks) + 1};
}

void check_recomputing_ranks(const Pins& pins) {
  const int ranks = pins.recompute_ranks.value_or(0);
  if (ranks > 0 && pins.recompute == Recompute::none) {
    throw contradiction(fmt::format("pins contradict each other: {}, {}: then none recomputes",
                                    name_of_pin(pins, "recompute", "none"),
                                    pin(pins, "recompute_ranks", ranks)));
  }
  if (pins.pipeline && ranks > *pins.pipeline) {
    throw contradiction(fmt::format("pins contradict each other: {} of {}",
                                    pin(pins, "recompute_ranks", ranks),
                                    pin(pins, "pipeline", pins.pipeline)));
  }
}

}  // namespace

void check_pins(const Job& job, const Cluster& cluster) {
  const Pins& pins = job.pins;
  const int batch = job.training.global_batch;
  if (pins.schedule) {
    require_built(*pins.schedule);
    const std::optional<int> fixed = fixed_chunks(*pins.schedule);
    if (pins.chunks && fixed && *fixed != *pins.chunks) {
      throw contradiction(
          fmt::format("pins contradict each other: {} has {} per pipeline rank, {} asks for "
                      "another number",
                      name_of_pin(pins, "schedule", *pins.schedule),
                      *fixed == 1 ? "one stage" : "two stages", pin(pins, "chunks", pins.chunks)));
    }
  }
  check_recomputing_ranks(pins);
  const int chunks = pinned_chunks(pins);
  const int64_t samples =
      static_cast<int64_t>(pins.data.value_or(1)) * pins.micro_batch.value_or(1);
  // Replicas on several kinds of node may take unequal shares.
  const bool equal = cluster.groups.size() == 1;
  if (batch % (equal ? samples : pins.micro_batch.value_or(1)) != 0 || batch < samples) {
    throw contradiction(
        fmt::format("{} contradict{} global_batch = {}: {} samples at a time do not divide it",
                    join(pin(pins, "data", pins.data), pin(pins, "micro_batch", pins.micro_batch)),
                    pins.data && pins.micro_batch ? "" : "s", batch, samples));
  }
  const int pipeline = pins.pipeline.value_or(1);
  if (static_cast<int64_t>(pipeline) * chunks - 2 > job.model.layers) {
    const std::string of_chunks = pins.chunks     ? pin(pins, "chunks", pins.chunks)
                                  : pins.schedule ? name_of_pin(pins, "schedule", *pins.schedule)
                                                  : "";
    const std::string names = join(pin(pins, "pipeline", pins.pipeline), of_chunks);
    throw contradiction(fmt::format(
        "{} contradict{} layers = {}: {} stages, of which only the first and the last can be "
        "without a layer",
        names, pins.pipeline && !of_chunks.empty() ? "" : "s", job.model.layers,
        static_cast<int64_t>(pipeline) * chunks));
  }
}

void enumerate_degrees(const Job& job, const std::vector<const NodeGroup*>& kinds,
                       const CandidateSinks& sinks) {
  Enumeration(job, kinds, sinks).run();
}

void apply(const Options& options, Layout& layout) {
  layout.recompute = options.recompute;
  layout.recompute_ranks = options.recompute_ranks;
  layout.sequence_parallel = options.sequence_parallel;
  layout.optimizer_sharding = options.optimizer_sharding;
}

std::vector<Options> options_of(const Job& job, bool cpu, const Layout& degrees) {
  std::vector<Options> result;
  for (const Recompute recompute : recomputes(job, cpu)) {
    for (const int ranks : recompute_ranks(job, recompute, degrees.pipeline)) {
      for (const bool sequence_parallel : sequence_choices(job, cpu, degrees.tensor)) {
        for (const int sharding : sharding_choices(job, cpu, degrees.data)) {
          result.push_back({recompute, ranks, sequence_parallel, sharding});
        }
      }
    }
  }
  return result;
}

std::vector<std::vector<size_t>> group_sequences(const Cluster& cluster) {
  std::vector<std::vector<size_t>> result;
  for (size_t g = 0; g < cluster.groups.size(); ++g) result.push_back({g});
  const bool any_order = cluster.groups.size() <= 3;
  // Each sequence is longer by one than the one that it extends, so shorter ones come first.
  for (size_t i = 0; i < result.size(); ++i) {
    if (cluster.groups[result[i].front()].device.is_cpu()) continue;
    for (size_t g = any_order ? 0 : result[i].back() + 1; g < cluster.groups.size(); ++g) {
      const std::vector<size_t>& sequence = result[i];
      if (cluster.groups[g].device.is_cpu() ||
          std::find(sequence.begin(), sequence.end(), g) != sequence.end()) {
        continue;
      }
      std::vector<size_t> longer = sequence;
      longer.push_back(g);
      result.push_back(std::move(longer));
    }
  }
  return result;
}

int pipeline_capacity(const Layout& layout, const NodeGroup& nodes) {
  return static_cast<int>(nodes.hosts.size()) * nodes.devices / (layout.tensor * layout.data);
}

int replica_capacity(const Layout& layout, const NodeGroup& nodes) {
  return static_cast<int>(nodes.hosts.size()) * nodes.devices / (layout.tensor * layout.pipeline);
}

std::vector<Near> near_choices(const PlacedLayout& layout, const Cluster& cluster) {
  if (layout.pipeline == 1 || layout.data == 1) return {Near::data};
  std::vector<Near> choices = {Near::data, Near::pipeline};
  const std::vector<size_t> groups = groups_in_use(layout.placement);
  const int devices = cluster.groups[groups.front()].devices;
  const int filling = devices / layout.tensor;
  const int leaf_nodes = cluster.fabric.kind == FabricKind::tree ? cluster.fabric.leaf_nodes : 0;
  const bool fill_nodes = groups.size() == 1 && filling > 1 && filling < layout.data &&
                          devices % layout.tensor == 0 && layout.data % filling == 0;
  const bool stay_below_a_leaf = layout.pipeline <= leaf_nodes && leaf_nodes % layout.pipeline == 0;
  if (fill_nodes && stay_below_a_leaf) choices.push_back(Near::node);
  return choices;
}

std::vector<Completion> possible_completions(const Job& job, int pipeline) {
  const Pins& pins = job.pins;
  std::vector<Completion> result;
  for (const std::string& schedule :
       pins.schedule ? std::vector<std::string>{*pins.schedule} : searched_schedules()) {
    if (!worth_a_look(pins, pipeline, schedule)) continue;
    const Range chunks = chunk_choices(job, pipeline, schedule);
    for (int count = chunks.begin; count < chunks.end; ++count) result.push_back({schedule, count});
  }
  return result;
}

std::optional<std::string> why_not_searched(const std::string& schedule, int pipeline,
                                            int micro_batches, int chunks) {
  const int64_t ops = int64_t{3} * pipeline * micro_batches * chunks;
  if (ops > kMostOps) {
    return fmt::format("{} ops in a step are more than the {} that a schedule may have here", ops,
                       kMostOps);
  }
  return why_not(
      {.name = schedule, .pipeline = pipeline, .micro_batches = micro_batches, .chunks = chunks});
}

}  // namespace trireme
