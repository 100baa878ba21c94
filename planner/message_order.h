#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "planner/checker.h"

namespace trireme {

// Whether a schedule's messages get through without tags (checker.h, SendMode), in two parts: every
// channel's messages are taken in the order sent, and nobody waits forever for a partner. The
// schedule must run under asynchronous sends. Nothing when it holds, else the verdict. Linear in
// the number of ops.
std::optional<Verdict> check_messages(const Schedule& schedule, const CheckOptions& options);

}  // namespace trireme
