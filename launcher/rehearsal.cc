#include "launcher/rehearsal.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <vector>

#include "launcher/preflight.h"
#include "planner/simulator.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr double kLongestSeconds = 1e6;

Error bad_input(const std::string& sentence) {
  return {ErrorKind::bad_input, sentence};
}

struct OpTimes {
  StagePrediction stage;
  double hop = 0;
};

OpTimes parse_op_times(const std::string& text) {
  OpTimes times;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    double* target = key == "f"     ? &times.stage.forward_seconds
                     : key == "i"   ? &times.stage.input_seconds
                     : key == "w"   ? &times.stage.weight_seconds
                     : key == "hop" ? &times.hop
                                    : nullptr;
    const char* begin = part.data() + std::min(part.size(), equals + 1);
    const char* end = part.data() + part.size();
    double value = -1;
    const auto [rest, error] = std::from_chars(begin, end, value);
    const bool number = error == std::errc() && rest == end && equals != std::string::npos;
    if (target == nullptr || !number || !(value >= 0 && value <= kLongestSeconds)) {
      throw bad_input(
          fmt::format("--op-times: found \"{}\", expected f=, i=, w= or hop= with seconds", part));
    }
    *target = value;
  }
  return times;
}

Costs costs_of(const PipelineTimes& times) {
  Costs costs;
  costs.stages.clear();
  costs.transfer = times.transfer_seconds;
  costs.hop = times.hop_seconds;
  for (const StagePrediction& stage : times.stages) {
    costs.stages.push_back({stage.forward_seconds, stage.input_seconds, stage.weight_seconds});
  }
  return costs;
}

void set_times(const OpTimes& times, size_t stages, PipelineTimes& of_share) {
  of_share.stages.resize(stages);
  for (StagePrediction& stage : of_share.stages) {
    const double bytes = stage.activation_bytes;
    stage = times.stage;
    stage.activation_bytes = bytes;
  }
  of_share.transfer_seconds = 0;
  of_share.hop_seconds = times.hop;
}

// What the new op times change in a prediction. FLOP rates go with the speed. Of unequal shares the
// slowest makes the step.
void predict_again(const OpTimes& times, Plan& plan) {
  Prediction& prediction = plan.prediction;
  set_times(times, plan.stages.size(), prediction);
  prediction.other_shares.resize(plan.other_schedules.size());
  for (PipelineTimes& other : prediction.other_shares) {
    set_times(times, plan.stages.size(), other);
  }
  const std::vector<Share>& shares = plan.layout.shares;
  std::vector<PipelineRun> runs;
  const auto run = [&](const Schedule& schedule) {
    const Simulation simulation = simulate(schedule, costs_of(prediction));
    const int replicas = shares.empty() ? plan.layout.data : shares[runs.size()].replicas;
    runs.push_back({replicas, simulation.makespan, simulation.bubble_fraction});
    return simulation.makespan;
  };
  double makespan = run(plan.schedule);
  for (const Schedule& other : plan.other_schedules) makespan = std::max(makespan, run(other));
  if (!(makespan > 0)) throw bad_input("--op-times: expected ops that take time");
  const double faster = prediction.step_seconds / makespan;
  prediction.model_tflops_per_device *= faster;
  prediction.hardware_tflops_per_device *= faster;
  prediction.mfu *= faster;
  prediction.step_seconds = makespan;
  prediction.tokens_per_second =
      static_cast<double>(plan.job.training.global_batch) * plan.job.model.sequence / makespan;
  prediction.bubble_fraction = bubble_of_all(runs);
  prediction.breakdown = {{"pipeline", makespan}};
}

bool says_what_ops_take(const Plan& plan) {
  const std::vector<PipelineTimes>& others = plan.prediction.other_shares;
  return !plan.prediction.stages.empty() && others.size() == plan.other_schedules.size() &&
         std::none_of(others.begin(), others.end(),
                      [](const PipelineTimes& times) { return times.stages.empty(); });
}

}  // namespace

Rehearsal rehearsal_of(const RehearsalOptions& options) {
  const Rehearsal rehearsal{options.wire_scale.value_or(1), options.time_scale.value_or(1)};
  if (!(rehearsal.wire_scale > 0 && rehearsal.wire_scale <= 1)) {
    throw bad_input(fmt::format("--wire-scale: found {}, expected a share above 0 and up to 1",
                                rehearsal.wire_scale));
  }
  if (!(rehearsal.time_scale > 0 && rehearsal.time_scale <= kLongestSeconds)) {
    throw bad_input(fmt::format("--time-scale: found {}, expected a factor above 0 and up to {}",
                                rehearsal.time_scale, kLongestSeconds));
  }
  if (options.steps.value_or(1) < 1) {
    throw bad_input(fmt::format("--steps: found {}, expected 1 or more", *options.steps));
  }
  return rehearsal;
}

Plan rehearsed_plan(Plan plan, const RehearsalOptions& options) {
  if (plan.layout.ranks() > kMaxRehearsedRanks) {
    throw bad_input(fmt::format(
        "the plan has {} ranks; a rehearsal starts all of them on this machine and stops at {}",
        plan.layout.ranks(), kMaxRehearsedRanks));
  }
  check_schedules(plan);
  if (!options.op_times.empty()) {
    predict_again(parse_op_times(options.op_times), plan);
  } else if (!says_what_ops_take(plan)) {
    throw bad_input("the plan does not say what its ops take: --op-times f=,i=,w= does");
  }
  plan.job.training.steps = options.steps.value_or(kRehearsedSteps);
  plan.job.training.warmup_steps = 0;  // of the learning rate; could be longer than the rehearsal
  plan.job.checkpoint.every = 0;
  return plan;
}

}  // namespace trireme
