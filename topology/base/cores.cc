#include "topology/base/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>

namespace trireme {

int usable_cores() {
  cpu_set_t cores;
  // Fails where the machine has more cores than the set has room for.
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
}

}  // namespace trireme
