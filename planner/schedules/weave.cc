#include <algorithm>
#include <cstddef>

#include "planner/schedules/generators.h"

namespace trireme {

std::vector<Op> weave(const std::vector<Op>& forwards, const std::vector<Op>& backwards,
                      int warm_up) {
  std::vector<Op> program;
  program.reserve(forwards.size() + backwards.size());
  const size_t first = std::min(static_cast<size_t>(warm_up), forwards.size());
  program.insert(program.end(), forwards.begin(),
                 forwards.begin() + static_cast<std::ptrdiff_t>(first));
  auto backward = backwards.begin();
  for (size_t i = first; i < forwards.size(); ++i) {
    program.push_back(forwards[i]);
    program.push_back(*backward++);
  }
  program.insert(program.end(), backward, backwards.end());
  return program;
}

}  // namespace trireme
