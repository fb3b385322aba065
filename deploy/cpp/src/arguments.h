// The command line, the same for every engine and for deploy/python.
#pragma once

#include <string>
#include <vector>

namespace deploy {

struct Arguments {
  std::string bundle;
  std::vector<std::string> images;
  int batch = 1;
  int threads = 0;  // set to what the machine has if not asked for
  int repeat = 0;
  int top = 5;
  std::string precision = "fp32";
  bool gpu = false;
  bool json = false;
  std::string dump_input;
  bool help = false;
};

std::string usage(const std::string& program);

// Throws RequestError.
Arguments parse(int count, char** values);

}  // namespace deploy
