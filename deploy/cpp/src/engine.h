// What the program asks of a runtime. Each executable links one implementation: onnx_engine.cc or paddle_engine.cc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.h"

namespace deploy {

class Engine {
 public:
  virtual ~Engine() = default;

  // input: float32 [batch, 3, crop, crop]. Returns logits, float32 [batch, classes]. Throws EngineError.
  virtual std::vector<float> run(const std::vector<float>& input, int batch) = 0;

  virtual std::string version() const = 0;
};

extern const char* const kEngineFormat;  // of the model that it reads: "onnx" or "paddle"

// threads: of the CPU, inside an operator. Throws RequestError, EngineError.
std::unique_ptr<Engine> open_engine(const Bundle& bundle, int threads, bool gpu);

// One line of what a library had to say.
std::string one_line(const std::string& text);

}  // namespace deploy
