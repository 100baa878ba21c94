#include "launcher/line_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "topology/base/error.h"

namespace trireme {

LineFile::LineFile(std::string path, std::function<void(const std::string&)> complain)
    : path_(std::move(path)),
      complain_(std::move(complain)),
      file_(open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (file_ < 0) {
    throw Error(ErrorKind::failed, fmt::format("{}: {}", path_, std::strerror(errno)));
  }
}

LineFile::~LineFile() {
  close(file_);
}

void LineFile::append(std::string line) {
  line += '\n';
  const ssize_t written = write(file_, line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) {
    return;
  }
  const std::string why = written < 0 ? std::strerror(errno) : "no space is left for a whole line";
  struct stat info {};
  const bool in_part = written > 0 && fstat(file_, &info) == 0;
  const bool taken_back = in_part && ftruncate(file_, info.st_size - written) == 0;
  if (++lost_ == 1) {
    complain_(fmt::format("{}: a line was lost, as are others while this lasts: {}{}", path_, why,
                          in_part && !taken_back ? "; part of it is left" : ""));
  }
}

}  // namespace trireme
