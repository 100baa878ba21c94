#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "planner/plan/job.h"

namespace trireme {

// The token stream of a job and the sample order over it, the same on every rank and at every
// layout. Sample k of the run (k = step * global_batch + i) is a window of sequence+1 tokens; the
// first `sequence` are inputs, the last `sequence` are targets. With N tokens a window may start at
// 0 .. N-sequence-1:
//   sequential: at (k * sequence) mod (N - sequence)
//   shuffled:   at a random number of the stream "data.order" of the seed, modulo (N - sequence)
// Text files are bytes (vocabulary 256), read in the sorted order of their paths. u16 and u32 are
// flat little-endian token files; llmc is llm.c's .bin: 256 header words, then u16 tokens (version
// 1) or u32 (version 7).
class TokenSource {
 public:
  // By which different data can be told apart at a glance: its size, and a number made of the first
  // and last bytes of every file.
  struct Identity {
    int64_t tokens = 0;
    int64_t mark = 0;  // below 2^53
    bool operator==(const Identity&) const = default;
  };

  // Throws Error(bad_input) when nothing matches the path, a file is not what its format says, or
  // there are fewer than sequence+1 tokens. What files grow by afterwards does not count.
  TokenSource(const Data& data, int sequence, int vocabulary, uint64_t seed);
  ~TokenSource();

  const Identity& identity() const { return identity_; }
  // Writes sample k's `sequence` inputs and targets. Throws Error(bad_input) for a token that is
  // not below the vocabulary.
  void sample(uint64_t k, int32_t* inputs, int32_t* targets) const;

 private:
  class File;
  int32_t token_at(size_t file, int64_t position) const;
  int64_t start_of(uint64_t k) const;

  std::vector<std::unique_ptr<File>> files_;
  std::vector<int64_t> ends_;  // by file: tokens up to its end
  int64_t tokens_ = 0;
  Identity identity_;
  int sequence_;
  int vocabulary_;
  uint64_t seed_;
  SampleOrder order_;
};

}  // namespace trireme
