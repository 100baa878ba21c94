#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "planner/plan/status_page.h"

namespace trireme {

// What a rank was doing, read from its status page:
//   {"doing":"receiving", "step":12, "op":"3B7", "stage":3, "micro_batch":7, "peer":5}
// without the keys that the rank had not set.
nlohmann::json doing_of(const StatusPage& page);

// The same as a clause: "in step 12, receiving from r5 for op 3B7 (backward of stage 3 on
// micro-batch 7)". Takes any JSON.
std::string describe_doing(const nlohmann::json& doing);

}  // namespace trireme
