#pragma once

#include <functional>
#include <string>

namespace trireme {

// Appends lines to a file that several processes may append to: each line is one write. A full disk
// must not stop a run: a line that cannot be written whole is taken back and left out, and the
// first of them is told of.
class LineFile {
 public:
  // Throws Error(failed) when the file cannot be opened.
  LineFile(std::string path, std::function<void(const std::string& complaint)> complain);
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // A line without its end.
  void append(std::string line);
  int lost() const { return lost_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::function<void(const std::string&)> complain_;
  int file_;
  int lost_ = 0;
};

}  // namespace trireme
