#include "launcher/preflight.h"

#include <fmt/format.h>

#include <string_view>

#include "planner/checker.h"
#include "planner/plan/plan_check.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

void refuse(const std::string& sentence) {
  throw Error(ErrorKind::unavailable, sentence);
}

bool contains(std::string_view words, const std::string& word) {
  return (" " + std::string(words) + " ").find(" " + word + " ") != std::string::npos;
}

void refuse_other(const char* option, const std::string& value, std::string_view here,
                  std::string_view elsewhere) {
  if (contains(here, value)) {
    return;
  }
  if (contains(elsewhere, value)) {
    refuse(fmt::format("{} {}: this version has only: {}", option, value, here));
  }
  throw Error(ErrorKind::bad_input,
              fmt::format("{}: found \"{}\", expected one of: {}", option, value, here));
}

}  // namespace

void check_target(const RunTarget& target) {
  refuse_other("--on", target.on, "local", "ssh mpi slurm");
  refuse_other("--device", target.device, "cpu emulated", "cuda");
}

void check_runnable(const Job& job) {
  if (job.training.dtype != Dtype::fp32) {
    refuse("training.dtype = \"bf16\": CPU ranks of this version train in fp32 only");
  }
  if (job.model.family == Family::gpt2 && job.model.kv_heads != job.model.heads) {
    refuse(fmt::format(
        "model.kv_heads = {} of {} heads: GPT models with grouped queries can be planned for, but "
        "this version trains none",
        job.model.kv_heads, job.model.heads));
  }
}

void check_runnable(const Plan& plan) {
  check_runnable(plan.job);
  const Layout& layout = plan.layout;
  if (layout.sequence_parallel) {
    refuse("sequence_parallel = true: this version does not run sequence parallelism");
  }
  if (layout.recompute != Recompute::none) {
    refuse(
        fmt::format("recompute = \"{}\": this version keeps all activations and runs only \"none\"",
                    name_of(layout.recompute)));
  }
  if (layout.optimizer_sharding != 0) {
    refuse(fmt::format(
        "optimizer_sharding = {}: this version keeps whole optimizer states, which is 0",
        layout.optimizer_sharding));
  }
  if (plan.device != "cpu") {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("the plan is for {} devices of cluster \"{}\"; --on local --device cpu runs "
                    "plans for \"cpu\" devices",
                    plan.device, plan.cluster));
  }
  if (layout.ranks() > kMaxLocalRanks) {
    throw Error(
        ErrorKind::bad_input,
        fmt::format("the plan has {} ranks; --on local starts all of them on this machine and "
                    "stops at {}",
                    layout.ranks(), kMaxLocalRanks));
  }
  if (const auto fault = find_fault(plan))
    throw Error(ErrorKind::bad_input, fmt::format("the plan: {}", fault->found_and_expected));
  check_schedules(plan);
}

void check_schedules(const Plan& plan) {
  const auto check = [](const Schedule& schedule) {
    if (const Verdict verdict = check_schedule(schedule); !verdict.legal) {
      throw Error(ErrorKind::bad_input,
                  fmt::format("the plan's schedule cannot run: {}{}{}", verdict.reason,
                              verdict.grid.empty() ? "" : "\n", verdict.grid));
    }
  };
  // Legal schedules go back on all ranks or on none.
  const auto trains = [](const Schedule& schedule) {
    return schedule.ranks.front().back().kind != OpKind::forward;
  };
  check(plan.schedule);
  for (const Schedule& other : plan.other_schedules) {
    check(other);
    if (trains(other) != trains(plan.schedule)) {
      throw Error(
          ErrorKind::bad_input,
          "the plan's schedules cannot run together: some shares have backwards, some none");
    }
  }
}

}  // namespace trireme
