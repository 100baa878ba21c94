#include "topology/base/error.h"

namespace trireme {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::bad_input:
    case ErrorKind::unavailable:
      return 2;
    case ErrorKind::no_layout:
      return 3;
    case ErrorKind::failed:
    case ErrorKind::peer_lost:
      break;
  }
  return 1;
}

}  // namespace trireme
