#include "runtime/device/emulated_stream.h"

#include <sys/prctl.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <ctime>

namespace trireme {
namespace {

double now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

EmulatedStream::EmulatedStream() {
  prctl(PR_SET_TIMERSLACK, 1UL);
  start();
}

void EmulatedStream::start() {
  begin_ = end_ = now();
  input_ = busy_ = slipped_ = 0;
}

void EmulatedStream::await_input(double when) {
  input_ = std::max(input_, when);
}

double EmulatedStream::run(double seconds) {
  const double due = std::max(end_, input_) + seconds;
  end_ = std::max(due, now());
  slipped_ += end_ - due;
  busy_ += seconds;
  input_ = 0;
  return end_;
}

void EmulatedStream::wait() const {
  double whole = 0;
  const double part = std::modf(end_, &whole);
  const timespec until{static_cast<time_t>(whole), static_cast<long>(part * 1e9)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

}  // namespace trireme
