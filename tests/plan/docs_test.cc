#include <gtest/gtest.h>

#include "planner/plan/job.h"
#include "topology/base/toml_reader.h"
#include "topology/cluster.h"

// The examples of the pages are files that a reader may copy: each must parse.

namespace trireme {
namespace {

std::vector<std::string> examples_of(const std::string& page) {
  const auto text = read_text_file(std::string(TRIREME_SOURCE_DIR "/docs/") + page);
  const std::string fence = "```toml\n";
  std::vector<std::string> examples;
  for (size_t at = text.find(fence); at != std::string::npos; at = text.find(fence, at)) {
    at += fence.size();
    examples.push_back(text.substr(at, text.find("```", at) - at));
  }
  return examples;
}

TEST(Docs, ClusterExamplesParse) {
  const auto examples = examples_of("cluster.md");
  ASSERT_EQ(examples.size(), 2U);
  EXPECT_EQ(parse_cluster(examples[0], "cluster.md").device_count(), 16 * 8 + 4 * 4);
  EXPECT_EQ(parse_cluster(examples[1], "cluster.md").device_count(), 8);
}

TEST(Docs, JobExamplesParse) {
  const auto examples = examples_of("job.md");
  ASSERT_EQ(examples.size(), 2U);
  EXPECT_EQ(parse_job(examples[0], "job.md", "/").pins.tensor, 2);
  EXPECT_EQ(parse_job(examples[1], "job.md", "/").model.vocab, 256);
}

// Every key of a written job stands on the page, so that none can be added without its line.
TEST(Docs, TheJobPageNamesEveryKey) {
  const auto page = read_text_file(TRIREME_SOURCE_DIR "/docs/job.md");
  auto job = parse_job(examples_of("job.md")[1], "job.md", "/");
  job.weights = "/w";
  const auto text = to_toml(job);
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    const auto key = text.substr(at, text.find_first_of(" \n", at) - at);
    if (key.empty() || key.front() == '[') continue;
    EXPECT_NE(page.find("`" + key + "`"), std::string::npos) << key;
  }
}

}  // namespace
}  // namespace trireme
