#pragma once

#include <vector>

#include "tests/tree/source_tree.h"

namespace trireme::tree {

// The one direction of dependencies, read from the #include lines of a C++ file:
//
//   topology/base <- topology <- planner/plan <- planner <- launcher
//                                     ^
//                                     +------------------- runtime
//
// tests/ and benchmarks/ stand outside and may use every layer. Packages that sit behind one of
// trireme's own interfaces are included only where that interface is implemented.
std::vector<Complaint> check_includes(const SourceFile& file);

}  // namespace trireme::tree
