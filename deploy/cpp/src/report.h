// What the program prints.
#pragma once

#include <string>
#include <vector>

namespace deploy {

struct Guess {
  int index;
  std::string label;
  double probability;  // softmax over all classes
};

struct Answer {
  std::string path;
  std::vector<Guess> top;  // best first
};

// Milliseconds. `prepare`: to read and pre-process an image of the batch, on average; the rest: to run the model
// on the whole batch.
struct Timing {
  int batch, runs;
  double median, fastest, slowest, prepare;
};

struct Report {
  std::string runtime, version, precision, device;
  int threads;
  std::vector<Answer> answers;
  std::vector<Timing> timing;  // one, or none if none was asked for
};

// The `count` best classes of one image's logits; equal ones in order of their index. Throws EngineError.
std::vector<Guess> best(const float* logits, int classes, int count, const std::vector<std::string>& labels);

std::string as_text(const Report& report);
std::string as_json(const Report& report);

}  // namespace deploy
