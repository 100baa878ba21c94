#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "planner/plan/plan.h"
#include "runtime/train/trainer.h"
#include "topology/base/error.h"

namespace trireme::test {

// Tiny jobs whose sizes do not divide by the tensor degrees on purpose.
Job tiny_gpt(int steps);
Job tiny_llama(int steps);

struct Degrees {
  int tensor = 1;
  int pipeline = 1;
  int data = 1;
  int chunks = 1;
  std::string schedule = "1f1b";
  int micro_batch = 1;
};
std::string to_string(const Degrees& degrees);

// A plan for exactly these degrees, layers cut evenly, every rank on "localhost".
Plan plan_for(const Job& job, const Degrees& degrees);
// The same with any schedule that has the right ranks, chunks and micro-batches.
Plan plan_for(const Job& job, const Degrees& degrees, Schedule schedule);
// The same with replicas that take unequally many micro-batches; `degrees.data` is not looked at.
Plan with_shares(const Job& job, Degrees degrees, const std::vector<Share>& shares);
// Cuts the layers again: so many for each stage.
void cut(Plan& plan, const std::vector<int>& layers);

// A legal schedule made by chance: stages anywhere, ops in any order that their inputs allow,
// backwards split or not, pairs of ops that are ready together. By way of its CSV, as from a file.
Schedule random_schedule(uint64_t seed, int pipeline, int chunks, int micro_batches);

// What a run gave: the reports of rank 0, and whole tensors put together from all shards by
// parameter name.
struct RunResult {
  std::vector<StepReport> reports;
  std::map<std::string, std::vector<float>> weights;
  std::vector<std::map<std::string, std::vector<float>>>
      gradients;  // by step, for the first `gradient_steps`
};
struct RunOptions {
  int gradient_steps = 0;
  int until_step = -1;          // stop before this step; -1: all
  int stop_in_step = -1;        // ask the first rank in this step to stop; -1: never
  std::string checkpoint_path;  // resume from
  std::string save_into;        // run directory to save a checkpoint into at the end
  Mutations mutations;
  int threads = 1;              // per rank
  std::string trace_directory;  // where each rank's trace goes; empty: nowhere
  // Wraps each rank's transport, to lose or change messages.
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)> wrap;
};
// Runs the plan with one thread per rank over the in-memory transport.
RunResult run_in_memory(const Plan& plan, const RunOptions& options = {});

// What the Error of this kind says that `action` throws; empty, and a failed test, for any other
// end.
std::string message_of(ErrorKind kind, const std::function<void()>& action);

// Every loss, gradient norm and weight is the same.
void expect_same_bits(const RunResult& run, const RunResult& reference, const std::string& what);

// || a - b || / || b ||, Frobenius.
double relative_error(const std::vector<float>& a, const std::vector<float>& b);

// A directory that is removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace trireme::test
