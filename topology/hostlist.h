#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// Host lists as clusters write them: "gpu[001-128,200],login" names 130 hosts. Leading zeros fix the width.
//
// expand: the hosts in written order. Throws Error(bad_input) for a malformed list, an empty or descending range, a host
// named twice, or more than 1,000,000 hosts.
std::vector<std::string> expand_hosts(std::string_view list);

// The shortest list of ascending ranges that expands to the same hosts in the same order.
std::string compress_hosts(const std::vector<std::string>& hosts);

}  // namespace trireme
