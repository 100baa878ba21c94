#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/comm/transport.h"

namespace trireme {

// Where ranks meet: `get` waits until the key is set and throws Error(peer_lost) when it never is.
// Thread-safe.
struct Rendezvous {
  std::function<void(const std::string& key, const std::string& value)> set;
  std::function<std::string(const std::string& key)> get;
};

// Connects `rank` over TCP through Gloo with those of the `size` ranks that it talks to, meeting
// through `rendezvous`. Collective, and mutual: a peer must name this rank among its own peers.
// `host` is the name or address that the others reach this rank at. `patience`: how long a receive
// waits before the peer counts as lost.
std::unique_ptr<Transport> connect_gloo(Rank rank, int size, const std::vector<Rank>& peers,
                                        const std::string& host, const Rendezvous& rendezvous,
                                        std::chrono::milliseconds patience);

}  // namespace trireme
