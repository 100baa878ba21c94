#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace trireme {

// What a command answered.
struct Answer {
  int status = -1;  // exit code; -1 when it ended otherwise
  std::string out;
  std::string err;

  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// Runs the built `trireme` as a user does, in a folder of its own that holds a cluster file
// (cluster.toml, eight A100 in one node) and a job (job.toml, a small GPT). Arguments go through a
// shell.
class Command : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  Answer trireme(const std::string& arguments) const;
  void write(const std::string& file, const std::string& text) const;
  std::string read(const std::string& file) const;
  // The file with one piece of its text replaced: for mistakes that leave the rest right.
  void replace(const std::string& file, const std::string& old_text,
               const std::string& new_text) const;

  std::string directory_;
};

}  // namespace trireme
