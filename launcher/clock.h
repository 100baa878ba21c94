#pragma once

#include <chrono>

namespace trireme {

// Seconds of the monotonic clock: the only time that deadlines are reckoned in.
inline double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace trireme
