// For tests only: declarations of the part of Paddle Inference's C++ API that paddle_classify uses, so that it can be
// linked to the library inside the pip package, which comes without headers. Written from the documented API and the
// library's exported symbols. Users build against the SDK's own header of this name.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace paddle {

class AnalysisConfig {
 public:
  AnalysisConfig(const std::string& program, const std::string& parameters);
  ~AnalysisConfig();
  void DisableGlogInfo();
  void DisableGpu();
  void SetCpuMathLibraryNumThreads(int threads);
  void EnableONEDNN();
  void DisableONEDNN();
  void SetOnednnCacheCapacity(int shapes);

 private:
  // The library's constructor fills the object: more room than any version needs.
  alignas(64) unsigned char room_[1 << 16];
};

}  // namespace paddle

namespace paddle_infer {

using Config = paddle::AnalysisConfig;

class Tensor {
 public:
  void Reshape(const std::vector<int>& shape);
  template <typename T>
  void CopyFromCpu(const T* data);
  template <typename T>
  void CopyToCpu(T* data) const;
  std::vector<int> shape() const;
};

class Predictor {
 public:
  std::vector<std::string> GetInputNames();
  std::vector<std::string> GetOutputNames();
  std::unique_ptr<Tensor> GetInputHandle(const std::string& name);
  std::unique_ptr<Tensor> GetOutputHandle(const std::string& name);
  bool Run();
};

std::shared_ptr<Predictor> CreatePredictor(const Config& config);
std::string GetVersion();

}  // namespace paddle_infer
