// ONNX Runtime.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "engine.h"
#include "error.h"

namespace deploy {
namespace {

// As far as Linux tells.
bool has_vnni() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string word; file >> word;)
    if (word == "avx512_vnni" || word == "avx_vnni") return true;
  return false;
}

class OnnxEngine : public Engine {
 public:
  OnnxEngine(const Bundle& bundle, int threads, bool gpu)
      : bundle_(bundle), environment_(ORT_LOGGING_LEVEL_ERROR, "onnx_classify"), session_(nullptr) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetInterOpNumThreads(1);
    // Where a processor has no VNNI, its fast product of uint8 and int8 saturates; elsewhere that is slower.
    if (!has_vnni()) options.AddConfigEntry("session.x64quantprecision", "1");
    if (gpu) use_cuda(options);
    try {
      session_ = Ort::Session(environment_, bundle.model.c_str(), options);
    } catch (const Ort::Exception& error) {
      throw EngineError("ONNX Runtime cannot load " + bundle.model.filename().string() + " (" +
                        one_line(error.what()) + ")");
    }
  }

  std::vector<float> run(const std::vector<float>& input, int batch) override {
    const int64_t shape[] = {batch, 3, bundle_.recipe.crop, bundle_.recipe.crop};
    const char* inputs[] = {bundle_.input.c_str()};
    const char* outputs[] = {bundle_.output.c_str()};
    try {
      const Ort::Value image = Ort::Value::CreateTensor<float>(
          memory_, const_cast<float*>(input.data()), input.size(), shape, 4);  // it only reads
      const auto results = session_.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 1);
      const size_t count = results[0].GetTensorTypeAndShapeInfo().GetElementCount();
      const float* logits = results[0].GetTensorData<float>();
      return {logits, logits + count};
    } catch (const Ort::Exception& error) {
      throw EngineError("ONNX Runtime failed (" + one_line(error.what()) + ")");
    }
  }

  std::string version() const override { return OrtGetApiBase()->GetVersionString(); }

 private:
  static void use_cuda(Ort::SessionOptions& options) {
    const auto there = Ort::GetAvailableProviders();
    if (std::find(there.begin(), there.end(), "CUDAExecutionProvider") == there.end())
      throw RequestError("this ONNX Runtime has no CUDA; leave out --gpu, or build against its GPU package");
    try {
      options.AppendExecutionProvider_CUDA(OrtCUDAProviderOptions{});
    } catch (const Ort::Exception& error) {
      throw RequestError("ONNX Runtime could not start CUDA (" + one_line(error.what()) +
                         "); leave out --gpu, or see to CUDA and cuDNN");
    }
  }

  Bundle bundle_;
  Ort::Env environment_;
  Ort::Session session_;
  Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
};

}  // namespace

const char* const kEngineFormat = "onnx";

std::unique_ptr<Engine> open_engine(const Bundle& bundle, int threads, bool gpu) {
  const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr)
    throw EngineError(std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                      " is older than the headers this program was built with");
  Ort::InitApi(api);
  return std::make_unique<OnnxEngine>(bundle, threads, gpu);
}

}  // namespace deploy
