#pragma once

#include "launcher/starter.h"

namespace trireme {

// Runs an AgentState on real sockets, clock and processes until the controller lets it go or is
// gone: starts the ranks of its node, each with its log file, its control socket and its status
// page; relays what they say; ends them. Returns the exit code of the process: 0 dismissed, 1
// refused or orphaned.
//
// The rank program is trireme-rank beside the running program, or what TRIREME_RANK_PROGRAM names.
int run_agent(const AgentOrder& order);

}  // namespace trireme
