#pragma once

#include <memory>

#include "runtime/comm/transport.h"

namespace trireme {

// The deterministic twin of a network: the ranks are threads of one process and messages wait in
// mailboxes. A rank that fails calls `abort`, and every rank that waits then gets Error(peer_lost).
class MemoryWorld {
 public:
  explicit MemoryWorld(int size);
  ~MemoryWorld();
  std::unique_ptr<Transport> transport(Rank rank);
  void abort();

 private:
  friend class MemoryTransport;
  struct Mail;
  int size_;
  std::shared_ptr<Mail> mail_;
};

}  // namespace trireme
