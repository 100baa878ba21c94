#pragma once

#include <span>
#include <vector>

#include "runtime/comm/transport.h"

namespace trireme {

// A collective of all ranks that needs few connections: a binary tree, rank r below rank (r-1)/2,
// so two messages per rank however many there are.

// Whom `rank` talks to.
std::vector<Rank> tree_neighbours(Rank rank, int size);
// Element by element the largest value that any rank brings, on every rank. Returns when all ranks
// have called it. As many values on every rank.
void tree_maximum(Transport& transport, std::span<double> values);

}  // namespace trireme
