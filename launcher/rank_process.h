#pragma once

#include <string>
#include <vector>

#include "launcher/process.h"
#include "planner/plan/status_page.h"
#include "topology/base/ids.h"

namespace trireme {

// A running rank as its agent holds it: the process, the agent's end of the control socket, and the
// status page that stays readable when the rank is dead.
class RankProcess {
 public:
  struct Spec {
    std::string program;
    std::string run_directory;
    std::string resume;  // checkpoint directory; empty: from the start
    std::string listen;  // where its peers reach it
    Rank rank;
  };
  // The rank dies with the calling thread. Throws Error(failed).
  static RankProcess start(const Spec& spec);
  RankProcess(RankProcess&& other) noexcept;
  RankProcess& operator=(RankProcess&&) = delete;
  ~RankProcess();

  Process& process() { return process_; }
  // The agent's end of the control socket; the caller takes it over.
  int take_control_socket() { return control_.release(); }
  const StatusPage& status() const { return *page_; }

 private:
  RankProcess(Process process, Descriptor control, StatusPage* page);
  Process process_;
  Descriptor control_;
  StatusPage* page_;
};

// The last `lines` lines of a text file, made printable; empty when it cannot be read. Reads no
// more than 16 KiB.
std::vector<std::string> tail_of(const std::string& path, size_t lines);

}  // namespace trireme
