#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// Host lists as clusters write them: "gpu[001-128,200],login" names 130 hosts. Leading zeros fix
// the width. A name may have several brackets; the last one varies fastest: "r[1-2]n[1-2]" is r1n1,
// r1n2, r2n1, r2n2.
//
// expand: the hosts in written order. Throws Error(bad_input) for a malformed list, an empty or
// descending range, a host named twice, or more than 1,000,000 hosts.
std::vector<std::string> expand_hosts(std::string_view list);

// A list of the fewest names, one bracket each, that expands to the same hosts in the same order.
// `hosts` are distinct.
std::string compress_hosts(const std::vector<std::string>& hosts);

}  // namespace trireme
