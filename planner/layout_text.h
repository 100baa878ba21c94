#pragma once

#include <string>

#include "planner/plan/layout.h"

namespace trireme {

// "tensor=2 pipeline=4 data=1 chunks=1 micro_batch=2 schedule=1f1b", and what it has besides: as
// pins are written.
std::string describe(const Layout& layout);

// The same without what completes a layout's degrees: chunks and schedule.
std::string describe_degrees(const Layout& layout);

}  // namespace trireme
