#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "planner/candidates.h"

namespace trireme {

// The job with what a schedule of the caller's own leaves no choice in: pipeline and chunks. Throws
// Error(bad_input) where its pins or its batch say otherwise.
Job pinned_to(Job job, const Schedule& own);

// What a search still has to choose once the degrees are fixed: options, and schedule with chunks.
// Layouts that agree in what matters to a choice share one list, made when it is first asked for.
// Keeps references to job and schedule, which must outlive it. Not shared by threads.
class Choices {
 public:
  using Reject = std::function<void(const std::string& layout, const std::string& reason)>;

  // With a schedule of the caller's own there is no other, for layouts that have its shape; null:
  // the built ones.
  Choices(const Job& job, const Schedule* own, Reject reject);

  const std::vector<Options>& options(const Layout& degrees, bool cpu);
  const std::vector<Completion>& completions(const Layout& degrees);
  // Of such a pipeline, for any number of micro-batches; without a schedule of the caller's own.
  const std::vector<Completion>& possible_completions(int pipeline);

 private:
  std::vector<Completion> find_completions(int pipeline, int micro_batches);

  const Job& job_;
  const Schedule* own_;
  Reject reject_;
  // By CPU nodes or not, one tensor rank or more, pipeline, one replica or more.
  std::map<std::tuple<bool, bool, int, int>, std::vector<Options>> options_;
  std::map<int, std::vector<Completion>> possible_;  // by pipeline
  // By pipeline and micro-batches.
  std::map<std::pair<int, int>, std::vector<Completion>> completions_;
};

}  // namespace trireme
