#include "topology/base/say.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace trireme {

// A pipe or terminal that poll finds writable takes PIPE_BUF bytes at once.
void say_in_passing(std::FILE* out, std::string_view text) {
  while (!text.empty()) {
    pollfd listener{fileno(out), POLLOUT, 0};
    const int ready = poll(&listener, 1, 0);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0 || (listener.revents & POLLOUT) == 0) return;
    const ssize_t written =
        write(fileno(out), text.data(), std::min(text.size(), size_t{PIPE_BUF}));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace trireme
