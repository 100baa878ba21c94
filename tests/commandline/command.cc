#include "tests/commandline/command.h"

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "topology/base/toml_reader.h"

namespace trireme {

namespace fs = std::filesystem;

void Command::SetUp() {
  std::string pattern = fs::temp_directory_path().string() + "/trireme-command-XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  directory_ = pattern;
  write("cluster.toml", R"(name = "box"
[[nodes]]
hosts = "box"
device = "A100-SXM4-80GB"
devices = 8
link = "nvlink"
)");
  write("job.toml", R"(name = "small"
[model]
family = "gpt2"
layers = 8
hidden = 512
heads = 8
vocab = 5000
sequence = 256
[training]
global_batch = 32
steps = 10
[data]
path = "corpus.txt"
format = "text"
)");
}

void Command::TearDown() {
  fs::remove_all(directory_);
}

Answer Command::trireme(const std::string& arguments) const {
  const std::string command = "cd " + directory_ + " && " + TRIREME_BINARY_DIR + "/trireme " +
                              arguments + " > out.txt 2> err.txt";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("out.txt"), read("err.txt")};
}

void Command::write(const std::string& file, const std::string& text) const {
  std::ofstream(directory_ + "/" + file, std::ios::binary) << text;
}

std::string Command::read(const std::string& file) const {
  return read_text_file(directory_ + "/" + file);
}

void Command::replace(const std::string& file, const std::string& old_text,
                      const std::string& new_text) const {
  std::string text = read(file);
  const size_t at = text.find(old_text);
  ASSERT_NE(at, std::string::npos);
  write(file, text.replace(at, old_text.size(), new_text));
}

}  // namespace trireme
