#pragma once

// TRIREME_CHECK states what must hold whatever the input was: a violation is a bug in trireme, so
// it prints where and what and aborts, in every build. Input is never checked with it (see
// error.h).

namespace trireme {
[[noreturn]] void check_failed(const char* condition, const char* file, int line);
}

#define TRIREME_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::trireme::check_failed(#condition, __FILE__, __LINE__))
