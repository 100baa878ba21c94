#include "launcher/rehearsal.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>

#include "planner/checker.h"
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

Costs costs_of(const Prediction& prediction) {
  Costs costs;
  costs.stages.clear();
  costs.transfer = prediction.transfer_seconds;
  costs.hop = prediction.hop_seconds;
  for (const StagePrediction& stage : prediction.stages) {
    costs.stages.push_back({stage.forward_seconds, stage.input_seconds, stage.weight_seconds});
  }
  return costs;
}

// What the new op times change in a prediction. FLOP rates go with the speed.
void predict_again(const OpTimes& times, Plan& plan) {
  Prediction& prediction = plan.prediction;
  prediction.stages.resize(plan.stages.size());
  for (StagePrediction& stage : prediction.stages) {
    const double bytes = stage.activation_bytes;
    stage = times.stage;
    stage.activation_bytes = bytes;
  }
  prediction.transfer_seconds = 0;
  prediction.hop_seconds = times.hop;
  const Simulation simulation = simulate(plan.schedule, costs_of(prediction));
  if (!(simulation.makespan > 0)) throw bad_input("--op-times: expected ops that take time");
  const double faster = prediction.step_seconds / simulation.makespan;
  prediction.model_tflops_per_device *= faster;
  prediction.hardware_tflops_per_device *= faster;
  prediction.mfu *= faster;
  prediction.step_seconds = simulation.makespan;
  prediction.tokens_per_second = static_cast<double>(plan.job.training.global_batch) *
                                 plan.job.model.sequence / simulation.makespan;
  prediction.bubble_fraction = simulation.bubble_fraction;
  prediction.breakdown = {{"pipeline", simulation.makespan}};
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
  if (!plan.layout.shares.empty()) {
    throw bad_input(
        "the plan has replicas of several kinds; a rehearsal emulates replicas that are alike");
  }
  if (const Verdict verdict = check_schedule(plan.schedule); !verdict.legal) {
    throw bad_input(fmt::format("the plan's schedule cannot run: {}", verdict.reason));
  }
  if (!options.op_times.empty()) {
    predict_again(parse_op_times(options.op_times), plan);
  } else if (plan.prediction.stages.empty()) {
    throw bad_input("the plan does not say what its ops take: --op-times f=,i=,w= does");
  }
  plan.job.training.steps = options.steps.value_or(kRehearsedSteps);
  plan.job.training.warmup_steps = 0;  // of the learning rate; could be longer than the rehearsal
  plan.job.checkpoint.every = 0;
  return plan;
}

}  // namespace trireme
