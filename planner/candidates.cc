#include "planner/candidates.h"

#include <fmt/format.h>

#include <algorithm>

#include "planner/layer_cut.h"
#include "planner/schedules/schedules.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

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

Error contradiction(const std::string& message) {
  return Error(ErrorKind::bad_input, message);
}

// Devices among which tensor parallelism has the node's fastest links.
int link_domain(const NodeGroup& nodes) {
  return nodes.link == NodeLink::nvlink_pairs ? std::min(2, nodes.devices) : nodes.devices;
}

// The fewest stages per pipeline rank that the pins leave open.
int pinned_chunks(const Pins& pins) {
  if (pins.chunks) return *pins.chunks;
  return pins.schedule ? fixed_chunks(*pins.schedule).value_or(1) : 1;
}

class Enumeration {
 public:
  Enumeration(const Job& job, const NodeGroup& nodes, const CandidateSinks& sinks)
      : job_(job),
        pins_(job.pins),
        nodes_(nodes),
        sinks_(sinks),
        devices_(static_cast<int>(nodes.hosts.size()) * nodes.devices) {}

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
    for (const int t : divisors(nodes_.devices)) {
      if (t > link_domain(nodes_)) {
        reject(
            fmt::format("tensor={}", t),
            fmt::format("only {} devices of a node share its fastest links", link_domain(nodes_)));
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
    if (tensor > nodes_.devices) {
      return reject(
          fmt::format("tensor={}", tensor),
          fmt::format("tensor ranks stay inside a node, which has {} devices", nodes_.devices));
    }
    for (int p = pins_.pipeline.value_or(1); p <= pins_.pipeline.value_or(devices_ / tensor); ++p) {
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
      const int ranks = tensor * pipeline * data;
      if (nodes_.devices % tensor != 0 && ranks > nodes_.devices) {
        reject(fmt::format("tensor={} pipeline={} data={}", tensor, pipeline, data),
               fmt::format(
                   "tensor={} does not divide a node's {} devices, so a tensor group would span "
                   "nodes",
                   tensor, nodes_.devices));
        continue;
      }
      const int share = job_.training.global_batch / data;
      for (const int micro_batch :
           pins_.micro_batch ? std::vector<int>{*pins_.micro_batch} : divisors(share)) {
        with_batch(tensor, pipeline, data, micro_batch);
      }
    }
  }

  void with_batch(int tensor, int pipeline, int data, int micro_batch) {
    Layout layout;
    layout.tensor = tensor;
    layout.pipeline = pipeline;
    layout.data = data;
    layout.micro_batch = micro_batch;
    layout.micro_batches = job_.training.global_batch / (data * micro_batch);
    layout.sequence_parallel = pins_.sequence_parallel.value_or(false);
    layout.recompute = pins_.recompute.value_or(Recompute::none);
    layout.optimizer_sharding = pins_.optimizer_sharding.value_or(0);
    for (const std::string& schedule :
         pins_.schedule ? std::vector<std::string>{*pins_.schedule} : searched_schedules()) {
      layout.schedule = schedule;
      with_chunks(layout);
    }
  }

  // On one pipeline rank all schedules do the same work in the same time, and 1F1B holds least.
  void with_chunks(Layout& layout) {
    const std::optional<int> fixed = fixed_chunks(layout.schedule);
    if (layout.pipeline == 1 && !pins_.schedule && !pins_.chunks && layout.schedule != "1f1b")
      return;
    int first = pins_.chunks.value_or(fixed.value_or(1)), last = first;
    if (fixed && first != *fixed) return;
    if (fewest_layers(layout.pipeline, first) > job_.model.layers) return;
    if (!fixed && !pins_.chunks && layout.pipeline > 1) {
      last = (job_.model.layers + 2) / layout.pipeline;
    }
    for (layout.chunks = first; layout.chunks <= last; ++layout.chunks) with_schedule(layout);
  }

  void with_schedule(const Layout& layout) const {
    const auto no = why_not({.name = layout.schedule,
                             .pipeline = layout.pipeline,
                             .micro_batches = layout.micro_batches,
                             .chunks = layout.chunks});
    if (no)
      return reject(fmt::format("pipeline={} schedule={}", layout.pipeline, layout.schedule), *no);
    sinks_.layout(layout);
  }

  const Job& job_;
  const Pins& pins_;
  const NodeGroup& nodes_;
  const CandidateSinks& sinks_;
  int devices_;
};

}  // namespace

void check_pins(const Job& job) {
  const Pins& pins = job.pins;
  const int batch = job.training.global_batch;
  if (pins.schedule) {
    require_built(*pins.schedule);
    const std::optional<int> fixed = fixed_chunks(*pins.schedule);
    if (pins.chunks && fixed && *fixed != *pins.chunks) {
      throw contradiction(
          fmt::format("pins contradict each other: schedule={} has {} per pipeline rank, "
                      "chunks={} asks for another number",
                      *pins.schedule, *fixed == 1 ? "one stage" : "two stages", *pins.chunks));
    }
  }
  const int chunks = pinned_chunks(pins);
  const int64_t samples =
      static_cast<int64_t>(pins.data.value_or(1)) * pins.micro_batch.value_or(1);
  if (batch % samples != 0) {
    std::string names;
    if (pins.data) names += fmt::format("data={} ", *pins.data);
    if (pins.micro_batch) names += fmt::format("micro_batch={} ", *pins.micro_batch);
    throw contradiction(
        fmt::format("{}contradict{} global_batch = {}: {} samples at a time do not divide it",
                    names, pins.data && pins.micro_batch ? "" : "s", batch, samples));
  }
  const int pipeline = pins.pipeline.value_or(1);
  if (static_cast<int64_t>(pipeline) * chunks - 2 > job.model.layers) {
    std::string names;
    if (pins.pipeline) names += fmt::format("pipeline={} ", pipeline);
    if (pins.chunks) names += fmt::format("chunks={} ", chunks);
    throw contradiction(fmt::format(
        "{}contradict{} layers = {}: {} stages, of which only the first and the last can be "
        "without a layer",
        names, pins.pipeline && pins.chunks ? "" : "s", job.model.layers,
        static_cast<int64_t>(pipeline) * chunks));
  }
}

void enumerate_layouts(const Job& job, const NodeGroup& nodes, const CandidateSinks& sinks) {
  Enumeration(job, nodes, sinks).run();
}

}  // namespace trireme
