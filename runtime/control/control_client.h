#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "planner/plan/protocol.h"
#include "planner/plan/status_page.h"
#include "topology/base/error.h"
#include "topology/base/ids.h"

namespace trireme {

// A rank's side of the control protocol (planner/plan/protocol.h): one connection to its agent,
// over the descriptors that it inherited. A thread of its own says "alive" every kHeartbeatSeconds
// and another reads what the agent says.
//
// When the agent is gone, nobody supervises this process any more: the reader thread then ends it
// at once with _exit(1), whatever the other threads are waiting for.
//
// Every function may be called from any thread. A function that sends blocks while the agent does
// not read.
class ControlClient {
 public:
  // Takes over both descriptors, says hello. Throws Error(bad_input) when they are not what an
  // agent hands down.
  explicit ControlClient(Rank rank, int control_descriptor = kControlDescriptor,
                         int status_descriptor = kStatusDescriptor);
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // The run's rendezvous store: small texts by key. Binary values travel as hex.
  void set(const std::string& key, const std::string& value);
  // Waits until some rank has set `key`. Throws Error(peer_lost) when that takes longer than
  // `timeout`: whoever should have set it did not come so far.
  std::string get(const std::string& key, std::chrono::milliseconds timeout);

  // True once the run was asked to stop: finish the current step, save, say done(stopped), exit 0.
  bool stop_requested() const { return stop_requested_; }

  void started();
  // From one rank of the run only: a line of metrics.jsonl.
  void report_step(const nlohmann::json& metrics);
  // `seconds`: in ops during this step; `window`: from the first op's begin to the last op's end.
  void report_busy(int step, double seconds, double window);
  // From rank 0, once the checkpoint is durable. `step`: how many steps were done.
  void report_checkpoint(int step, const std::string& path);
  // What the user should know: shown and recorded.
  void note(const std::string& text);
  // The last word before exiting with an error. `lost`: the peer that this rank lost, when known.
  void failed(const Error& error, std::optional<Rank> lost = std::nullopt);
  // The last word before exiting with 0.
  void done(bool stopped, int step, const nlohmann::json& summary);

  // What this rank notes here can be read after it has died.
  StatusPage& status() { return *status_; }

 private:
  void send(const nlohmann::json& message);
  void read_until_end();
  void handle(const nlohmann::json& message);
  void beat(const std::stop_token& stop);

  int socket_;
  StatusPage* status_;
  std::atomic<bool> stop_requested_{false};
  std::atomic<bool> closing_{false};

  std::mutex send_mutex_;
  std::mutex answer_mutex_;
  std::condition_variable answered_;
  std::map<int64_t, nlohmann::json> answers_;  // "value" messages that nobody fetched yet, by id
  int64_t next_id_ = 1;

  std::jthread reader_;
  std::jthread heart_;
};

}  // namespace trireme
