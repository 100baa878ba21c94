#include "launcher/rank_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>
#include <utility>

#include "launcher/events.h"
#include "planner/plan/protocol.h"
#include "planner/plan/run_directory.h"
#include "topology/base/error.h"

namespace trireme {
namespace {

constexpr off_t kPageBytes = 4096;

Descriptor checked(int descriptor, const std::string& what) {
  if (descriptor < 0) {
    throw Error(ErrorKind::failed, fmt::format("{}: {}", what, std::strerror(errno)));
  }
  return Descriptor(descriptor);
}

StatusPage* map_page(int memory) {
  if (ftruncate(memory, kPageBytes) != 0) {
    throw Error(ErrorKind::failed, "no memory for a status page");
  }
  void* page = mmap(nullptr, sizeof(StatusPage), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (page == MAP_FAILED) {
    throw Error(ErrorKind::failed, "a status page cannot be mapped");
  }
  return new (page) StatusPage;
}

}  // namespace

RankProcess::RankProcess(Process process, Descriptor control, StatusPage* page)
    : process_(std::move(process)), control_(std::move(control)), page_(page) {}

RankProcess::RankProcess(RankProcess&& other) noexcept
    : process_(std::move(other.process_)),
      control_(std::move(other.control_)),
      page_(std::exchange(other.page_, nullptr)) {}

RankProcess::~RankProcess() {
  if (page_ != nullptr) {
    munmap(page_, sizeof(StatusPage));
  }
}

RankProcess RankProcess::start(const Spec& spec) {
  const std::string log_path = RunDirectory{spec.run_directory}.rank_log(spec.rank);
  const Descriptor nothing = checked(open("/dev/null", O_RDONLY | O_CLOEXEC), "/dev/null");
  const Descriptor log =
      checked(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), log_path);
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw Error(ErrorKind::failed, fmt::format("no control socket: {}", std::strerror(errno)));
  }
  Descriptor ours(ends[0]);
  const Descriptor theirs(ends[1]);
  const Descriptor memory = checked(memfd_create("trireme-status", MFD_CLOEXEC), "status page");

  ProcessSpec process{
      .arguments = {spec.program, spec.run_directory, fmt::format("{}", spec.rank.value)},
      .environment = {{kResumeVariable, spec.resume}, {kListenVariable, spec.listen}},
      .descriptors = {{0, nothing.get()},
                      {1, log.get()},
                      {2, log.get()},
                      {kControlDescriptor, theirs.get()},
                      {kStatusDescriptor, memory.get()}},
      .dies_with_parent = true};
  StatusPage* page = map_page(memory.get());
  try {
    return {Process::start(process), std::move(ours), page};
  } catch (...) {
    munmap(page, sizeof(StatusPage));
    throw;
  }
}

std::vector<std::string> tail_of(const std::string& path, size_t lines) {
  constexpr std::streamoff kBytes = 16384;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return {};
  }
  file.seekg(std::max<std::streamoff>(0, static_cast<std::streamoff>(file.tellg()) - kBytes));
  std::vector<std::string> tail;
  for (std::string line; std::getline(file, line);) {
    tail.push_back(printable(std::move(line)));
  }
  const size_t surplus = tail.size() - std::min(tail.size(), lines);
  tail.erase(tail.begin(), tail.begin() + static_cast<std::ptrdiff_t>(surplus));
  return tail;
}

}  // namespace trireme
