#pragma once

namespace trireme {

// The compute stream of a device that is not there: ops take their time on the machine's monotonic
// clock and no CPU. An op starts when the one before has ended and its input is there, and ends
// when its seconds are over, not when this process happens to be woken: as on a device whose ops
// are queued ahead, a delay of the host counts only once it is longer than the op that it delays.
// What counts is kept as `slipped`. All times are seconds of CLOCK_MONOTONIC. Not thread-safe.
class EmulatedStream {
 public:
  // Asks the kernel for exact timers for the calling thread, which must be the one that waits.
  EmulatedStream();

  // A new step: everything queued later starts from now on.
  void start();
  // The next op needs an input that is there from `when` on.
  void await_input(double when);
  // Queues an op and returns when it will end.
  double run(double seconds);
  // Sleeps until everything queued has ended.
  void wait() const;

  // Of the current step.
  double busy() const { return busy_; }             // seconds of all ops
  double elapsed() const { return end_ - begin_; }  // from start() to the end of the last op
  double end() const { return end_; }               // of the last op
  double slipped() const { return slipped_; }       // by which the host was too late, in all

 private:
  double begin_ = 0;
  double end_ = 0;
  double input_ = 0;
  double busy_ = 0;
  double slipped_ = 0;
};

}  // namespace trireme
