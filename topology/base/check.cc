#include "topology/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace trireme {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "trireme: bug: %s does not hold at %s:%d\n", condition, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace trireme
