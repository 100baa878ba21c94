#pragma once

#include <compare>
#include <functional>

namespace trireme {

// An integer that cannot be mistaken for another kind of integer: no conversion in, none out but
// `.value`.
template <class Tag>
struct Id {
  int value = 0;
  constexpr explicit Id(int v = 0) : value(v) {}
  auto operator<=>(const Id&) const = default;
};

using Rank = Id<struct RankTag>;  // one runtime process: 0 .. tensor*data*pipeline-1
using Node =
    Id<struct NodeTag>;  // position of a host in the cluster file, all node groups counted through

}  // namespace trireme

template <class Tag>
struct std::hash<trireme::Id<Tag>> {
  size_t operator()(trireme::Id<Tag> id) const { return std::hash<int>()(id.value); }
};
