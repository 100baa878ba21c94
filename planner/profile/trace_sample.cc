#include "planner/profile/trace_sample.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "planner/cost/memory.h"
#include "topology/base/error.h"
#include "topology/base/toml_reader.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

struct TracedOp {
  Op op;
  double start = 0;
  double end = 0;
  double cpu = 0;  // seconds of the rank's process
};

struct TracedStep {
  double seconds = 0;
  double cpu = 0;
  std::vector<TracedOp> ops;
};

std::map<int, TracedStep> read_rank(const std::string& path) {
  std::map<int, TracedStep> steps;
  try {
    for (const Json& event : Json::parse(read_text_file(path))) {
      const auto category = event.value("cat", "");
      if (category != "op" && category != "step") continue;
      const Json& arguments = event.at("args");
      TracedStep& step = steps[arguments.at("step")];
      const double start = event.at("ts").get<double>() * 1e-6;
      const double seconds = event.at("dur").get<double>() * 1e-6;
      const double cpu = arguments.at("cpu_us").get<double>() * 1e-6;
      if (category == "step") {
        step.seconds = seconds;
        step.cpu = cpu;
        continue;
      }
      const auto kind = arguments.at("kind").get<std::string>();
      TracedOp traced{{}, start, start + seconds, cpu};
      traced.op.kind = kind == "F"   ? OpKind::forward
                       : kind == "B" ? OpKind::backward
                       : kind == "I" ? OpKind::backward_input
                                     : OpKind::backward_weight;
      traced.op.stage = arguments.at("stage");
      traced.op.micro_batch = arguments.at("micro_batch");
      step.ops.push_back(traced);
    }
  } catch (const Json::exception& error) {
    throw Error(ErrorKind::bad_input,
                fmt::format("{}: is no trace of a rank: {}", path, error.what()));
  }
  return steps;
}

std::vector<std::map<int, TracedStep>> read_ranks(const RunDirectory& directory, const Plan& plan) {
  std::vector<std::map<int, TracedStep>> ranks;
  for (int r = 0; r < plan.layout.ranks(); ++r) {
    ranks.push_back(read_rank(directory.rank_trace(Rank(r))));
    std::erase_if(ranks.back(), [](const auto& step) { return step.first < kWarmUpSteps; });
    if (ranks.back().empty()) {
      throw Error(ErrorKind::bad_input, fmt::format("{}: has no step after those that warm up",
                                                    directory.rank_trace(Rank(r))));
    }
  }
  return ranks;
}

double& of_kind(StageCost& cost, OpKind kind) {
  return kind == OpKind::forward          ? cost.forward
         : kind == OpKind::backward_input ? cost.input
                                          : cost.weight;
}

double seconds_of(const TracedOp& traced) {
  return traced.end - traced.start;
}

double cpu_of(const TracedOp& traced) {
  return traced.cpu;
}

// Mean of a micro-batch in one step, over all ranks.
StageCost mean_op(const std::vector<const TracedStep*>& ranks, int micro_batches,
                  double (*measure)(const TracedOp&)) {
  const int from = std::min(std::max(1, micro_batches / 4), micro_batches - 1);
  StageCost mean{0, 0, 0};
  for (const TracedStep* step : ranks) {
    for (const TracedOp& traced : step->ops) {
      if (traced.op.micro_batch < from) continue;
      of_kind(mean, traced.op.kind) +=
          measure(traced) / (micro_batches - from) / static_cast<double>(ranks.size());
    }
  }
  return mean;
}

double total(const StageCost& cost) {
  return cost.forward + cost.backward();
}

// Processor time of a rank in a step.
double mean_cpu(const std::vector<const TracedStep*>& ranks) {
  double sum = 0;
  for (const TracedStep* step : ranks) sum += step->cpu;
  return sum / static_cast<double>(ranks.size());
}

// That beyond its ops, of which those of the first micro-batches are taken to be like the others.
double other_cpu(const std::vector<const TracedStep*>& ranks, int micro_batches) {
  return mean_cpu(ranks) - micro_batches * total(mean_op(ranks, micro_batches, cpu_of));
}

double parameters_of_a_rank(const Plan& plan) {
  double sum = 0;
  for (const double count : stage_parameters(plan.job.model, plan.layout, plan.stages)) {
    sum += count;
  }
  return sum / plan.layout.pipeline;
}

// How long after the end of its op each message let a rank start that had waited for it.
void add_hops(const TracedStep& from, const TracedStep& to, OpKind kind,
              std::vector<double>& hops) {
  std::map<int, double> made;
  for (const TracedOp& traced : from.ops) {
    if (traced.op.kind == kind) made[traced.op.micro_batch] = traced.end;
  }
  double free = 0;
  for (const TracedOp& traced : to.ops) {
    const auto sent = made.find(traced.op.micro_batch);
    if (traced.op.kind == kind && sent != made.end() && free > 0 && free < sent->second) {
      hops.push_back(traced.start - sent->second);
    }
    free = traced.end;
  }
}

// The value below which this share of all lies.
double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double median(const std::vector<double>& values) {
  return quantile(values, 0.5);
}

// Of the step that this number has in the trace of every rank; empty where one lacks it.
std::vector<const TracedStep*> step_of(const std::vector<std::map<int, TracedStep>>& ranks,
                                       int number) {
  std::vector<const TracedStep*> step;
  for (const auto& rank : ranks) {
    const auto found = rank.find(number);
    if (found == rank.end()) return {};
    step.push_back(&found->second);
  }
  return step;
}

}  // namespace

RunSample run_sample(const RunDirectory& directory, const Plan& plan, int threads) {
  const auto ranks = read_ranks(directory, plan);
  const Layout& layout = plan.layout;
  const bool alone = threads == 1 && layout.tensor == 1;
  std::vector<double> forward, input, weight, cores, whole, other, late;
  for (const auto& [number, unused] : ranks.front()) {
    const std::vector<const TracedStep*> step = step_of(ranks, number);
    if (step.empty()) continue;
    const StageCost clock = mean_op(step, layout.micro_batches, seconds_of);
    const StageCost cpu = mean_op(step, layout.micro_batches, cpu_of);
    const StageCost& op = alone ? cpu : clock;
    forward.push_back(op.forward);
    input.push_back(op.input);
    weight.push_back(op.weight);
    cores.push_back(layout.tensor * total(cpu) / total(clock));
    whole.push_back(step.front()->seconds);
    late.push_back(step.front()->seconds / mean_cpu(step));
    other.push_back(other_cpu(step, layout.micro_batches) / threads);
  }
  RunSample sample;
  sample.tensor = layout.tensor;
  sample.data = layout.data;
  sample.micro_batch = layout.micro_batch;
  sample.threads = threads;
  sample.layers = plan.job.model.layers;
  // Ranks wait for the slowest of them, if only for the sums at the end of the step.
  const double waits = alone ? std::max(1.0, median(late)) : 1;
  sample.op = {waits * median(forward), waits * median(input), waits * median(weight)};
  sample.cores = median(cores);
  sample.step_seconds = median(whole);
  sample.other_seconds = std::max(0.0, median(other));
  sample.parameters = parameters_of_a_rank(plan);
  return sample;
}

MessageSample message_sample(const RunDirectory& directory, const Plan& plan) {
  const auto ranks = read_ranks(directory, plan);
  const Layout& layout = plan.layout;
  std::vector<double> hops, other;
  for (const auto& [number, unused] : ranks.front()) {
    const std::vector<const TracedStep*> step = step_of(ranks, number);
    if (step.empty()) continue;
    add_hops(*step.front(), *step.back(), OpKind::forward, hops);
    add_hops(*step.back(), *step.front(), OpKind::backward_input, hops);
    other.push_back(other_cpu(step, layout.micro_batches));
  }
  MessageSample sample;
  sample.bytes = 4.0 * layout.micro_batch * plan.job.model.sequence * plan.job.model.hidden;
  sample.hop_seconds = std::max(0.0, quantile(hops, 0.25));
  sample.messages = 2 * layout.micro_batches;  // activations one way, gradients the other
  sample.other_seconds = std::max(0.0, median(other));
  sample.parameters = parameters_of_a_rank(plan);
  return sample;
}

}  // namespace trireme
