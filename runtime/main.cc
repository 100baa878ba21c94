// trireme-rank RUN_DIRECTORY RANK: the process that owns one device. Started by an agent, never by
// hand.

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "planner/plan/protocol.h"
#include "planner/plan/rehearsal.h"
#include "planner/plan/run_directory.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/gloo_transport.h"
#include "runtime/comm/tree.h"
#include "runtime/control/control_client.h"
#include "runtime/train/rehearsal.h"
#include "runtime/train/trainer.h"
#include "topology/base/cores.h"
#include "topology/base/say.h"

namespace trireme {
namespace {

constexpr auto kRendezvousPatience = std::chrono::seconds(60);
// A peer that is gone is noticed by its closed connection at once; this bounds only the wait for
// one that is alive and slow.
constexpr auto kReceivePatience = std::chrono::minutes(30);

// As many threads as the cores that the node's ranks may use leave each of them.
int threads_for(const Plan& plan, Rank rank) {
  const auto& node = plan.placement[rank.value].node;
  int ranks = 0;
  for (const auto& placed : plan.placement) ranks += placed.node == node ? 1 : 0;
  return std::max(1, usable_cores() / std::max(1, ranks));
}

// By whoever started this rank.
std::string told(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
}

double tokens_of_step(const Plan& plan) {
  return static_cast<double>(plan.job.training.global_batch) * plan.job.model.sequence;
}

nlohmann::json metrics_of(const Plan& plan, const StepReport& report) {
  nlohmann::json metrics = {{"step", report.step},
                            {"loss", report.loss},
                            {"tokens_per_second", tokens_of_step(plan) / report.seconds},
                            {"step_seconds", report.seconds}};
  if (report.grad_norm) metrics["grad_norm"] = *report.grad_norm;
  if (report.learning_rate) metrics["learning_rate"] = *report.learning_rate;
  if (plan.schedule.asynchronous) metrics["asynchronous"] = true;
  return metrics;
}

// What a reader of the numbers must know about the schedule that made them.
void say_what_differs(const Plan& plan, ControlClient& control) {
  const StepKind kind = step_kind(plan.schedule);
  if (kind == StepKind::asynchronous) {
    control.note(fmt::format(
        "{}: each stage updates its weights after every backward and goes back with the "
        "weights it went forward with; losses and weights differ from those of synchronous "
        "schedules, and gradients are clipped by the norm of each stage",
        plan.schedule.name));
  }
  if (kind == StepKind::evaluation) {
    control.note(
        fmt::format("{}: evaluates; no gradients, no update, no checkpoint", plan.schedule.name));
  }
}

// Of a rehearsal, which has no loss.
nlohmann::json metrics_of(const Plan& plan, const RehearsedStep& report) {
  return {{"step", report.step},
          {"tokens_per_second", tokens_of_step(plan) / report.seconds},
          {"step_seconds", report.seconds},
          {"slipped_seconds", report.slipped_seconds}};
}

// True when the training ended before its last step because somebody asked.
bool train(const Plan& plan, Rank rank, Trainer& trainer, ControlClient& control,
           const RunDirectory& run) {
  const int every = plan.job.checkpoint.every;
  const auto save = [&] {
    if (const auto path = trainer.save(run)) control.report_checkpoint(trainer.next_step(), *path);
  };
  control.started();
  if (rank.value == 0) say_what_differs(plan, control);
  bool stopped = false;
  int saved = -1;
  while (!stopped && trainer.next_step() < plan.job.training.steps) {
    const StepReport report = trainer.step(control.stop_requested());
    control.report_busy(report.step, report.busy_seconds, report.window_seconds);
    if (rank.value == 0) control.report_step(metrics_of(plan, report));
    stopped = report.stop && trainer.next_step() < plan.job.training.steps;
    if (every > 0 && trainer.next_step() % every == 0) {
      save();
      saved = trainer.next_step();
    }
  }
  if (saved != trainer.next_step()) save();
  return stopped;
}

// What stays with the caller when a run throws: the transport's destructor waits for messages that
// have not left, which may be forever, and what was thrown must be reported first. Such messages
// may lie in the device's memory.
struct Resources {
  std::unique_ptr<Device> device;
  std::unique_ptr<Transport> transport;
};

void run_training(const Plan& plan, Rank rank, const Rendezvous& rendezvous, ControlClient& control,
                  const RunDirectory& run, Resources& resources) {
  const int ranks = plan.layout.ranks();
  resources.device = make_cpu_device(threads_for(plan, rank));
  resources.transport = connect_gloo(rank, ranks, everybody_else(rank, ranks),
                                     told(kListenVariable), rendezvous, kReceivePatience);
  Trainer trainer(plan, rank, *resources.device, *resources.transport, control.status(),
                  {.trace_path = run.rank_trace(rank),
                   .checkpoint_path = told(kResumeVariable),
                   .mutations = {},
                   .note = [&](const std::string& text) { control.note(text); }});
  const bool stopped = train(plan, rank, trainer, control, run);
  control.status().doing = static_cast<int32_t>(StatusPage::Doing::leaving);
  // Nobody closes a connection before everybody has what was sent over it.
  std::vector<Rank> everybody;
  for (int r = 0; r < ranks; ++r) everybody.emplace_back(r);
  make_message_communicator(*resources.transport, everybody, 0)->barrier();
  control.done(stopped, trainer.next_step(), nlohmann::json::object());
}

void run_rehearsal(const Plan& plan, const Rehearsal& rehearsal, Rank rank,
                   const Rendezvous& rendezvous, ControlClient& control, const RunDirectory& run,
                   std::unique_ptr<Transport>& transport) {
  transport = connect_gloo(rank, plan.layout.ranks(), rehearsal_peers(plan, rank),
                           told(kListenVariable), rendezvous, kReceivePatience);
  RehearsalTrainer trainer(plan, rank, rehearsal, *transport, control.status(),
                           run.rank_trace(rank));
  double together = 0;
  tree_maximum(*transport, {&together, 1});
  control.started();
  RehearsedStep report;
  while (!report.stop && trainer.next_step() < plan.job.training.steps) {
    report = trainer.step(control.stop_requested());
    control.report_busy(report.step, report.busy_seconds, report.window_seconds);
    if (rank.value == 0) control.report_step(metrics_of(plan, report));
  }
  control.status().doing = static_cast<int32_t>(StatusPage::Doing::leaving);
  tree_maximum(*transport, {&together, 1});
  const bool stopped = report.stop && trainer.next_step() < plan.job.training.steps;
  control.done(stopped, trainer.next_step(), {{"peak_bytes_per_pipeline_rank", report.peak_bytes}});
}

void run_rank(const std::string& directory, Rank rank, ControlClient& control,
              Resources& resources) {
  const RunDirectory run{directory};
  const Plan plan = read_plan(run.plan());
  const Rendezvous rendezvous{
      [&](const std::string& key, const std::string& value) { control.set(key, value); },
      [&](const std::string& key) { return control.get(key, kRendezvousPatience); }};
  if (const auto rehearsal = find_rehearsal(run)) {
    run_rehearsal(plan, *rehearsal, rank, rendezvous, control, run, resources.transport);
  } else {
    run_training(plan, rank, rendezvous, control, run, resources);
  }
}

int run_main(const std::string& directory, int number) {
  ControlClient control{Rank(number)};
  Resources resources;
  try {
    run_rank(directory, Rank(number), control, resources);
    return 0;
  } catch (const PeerLost& error) {
    std::fprintf(stderr, "trireme-rank %d: %s\n", number, error.what());
    control.failed(error, error.peer());
  } catch (const Error& error) {
    std::fprintf(stderr, "trireme-rank %d: %s\n", number, error.what());
    control.failed(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trireme-rank %d: %s\n", number, error.what());
    control.failed(Error(ErrorKind::failed, error.what()));
  }
  std::fflush(nullptr);
  // What still talks to peers, the transport above all, must not hold the process.
  _exit(1);
}

}  // namespace
}  // namespace trireme

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "trireme-rank is started by trireme run, not by hand\n");
    return 2;
  }
  // Message buffers of a few hundred kB come and go all the time: keep them in the heap instead of
  // mapping fresh pages.
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  try {
    return trireme::run_main(arguments[1], std::atoi(arguments[2]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trireme-rank: %s\n", error.what());
    return 2;
  }
}
