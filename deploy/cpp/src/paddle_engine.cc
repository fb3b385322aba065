// Paddle Inference, through its official C++ API. Needs 3.3 or later, as the bundles do.
#include <paddle_inference_api.h>

#include <functional>
#include <iostream>
#include <numeric>

#include "engine.h"
#include "error.h"

namespace deploy {
namespace {

constexpr int kGpuPoolMb = 256;

class PaddleEngine : public Engine {
 public:
  PaddleEngine(const Bundle& bundle, int threads, bool gpu) : bundle_(bundle) {
    try {
      start(threads, gpu, true);
    } catch (const RequestError&) {
      throw;
    } catch (const std::exception& error) {
      if (gpu) throw cannot_load(error);
      try {
        start(threads, gpu, false);
      } catch (const std::exception&) {  // then oneDNN was not the trouble
        throw cannot_load(error);
      }
      std::cerr << "note: oneDNN cannot run this graph, so it runs without, several times slower ("
                << one_line(error.what()) << ")\n";
    }
  }

  std::vector<float> run(const std::vector<float>& input, int batch) override {
    try {
      input_->Reshape({batch, 3, bundle_.recipe.crop, bundle_.recipe.crop});
      input_->CopyFromCpu(input.data());
      if (!predictor_->Run()) throw EngineError("it says no more");
      const std::vector<int> shape = output_->shape();
      std::vector<float> logits(std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>()));
      output_->CopyToCpu(logits.data());
      return logits;
    } catch (const std::exception& error) {
      throw EngineError("Paddle Inference failed (" + one_line(error.what()) + ")");
    }
  }

  std::string version() const override {  // of "version: 3.3.1\ncommit: ..."
    const std::string text = paddle_infer::GetVersion();
    const size_t begin = text.find("version: ") == 0 ? 9 : 0;
    return text.substr(begin, text.find('\n') - begin);
  }

 private:
  // Not EnableMemoryOptim(): it raises on models in Paddle 3's format.
  void start(int threads, bool gpu, bool onednn) {
    paddle_infer::Config config(bundle_.model.string(), bundle_.weights.string());
    config.DisableGlogInfo();
    if (gpu) {
#ifdef WITH_GPU
      config.EnableUseGpu(kGpuPoolMb, 0);
      if (!config.use_gpu()) throw RequestError("this Paddle Inference SDK is one for the CPU; leave out --gpu");
#endif
    } else {
      config.DisableGpu();
      config.SetCpuMathLibraryNumThreads(threads);
      if (onednn) {
        config.EnableONEDNN();
        config.SetOnednnCacheCapacity(1);  // else it keeps a repacked copy of the weights for each batch size
      } else {
        config.DisableONEDNN();
      }
    }
    predictor_ = paddle_infer::CreatePredictor(config);
    input_ = predictor_->GetInputHandle(predictor_->GetInputNames().at(0));
    output_ = predictor_->GetOutputHandle(predictor_->GetOutputNames().at(bundle_.output_index));
    // Only when the graph first runs does oneDNN refuse an operator's attributes.
    const size_t side = bundle_.recipe.crop;
    run(std::vector<float>(3 * side * side), 1);
  }

  EngineError cannot_load(const std::exception& error) const {
    return EngineError("Paddle Inference cannot run " + bundle_.model.filename().string() + " (" +
                       one_line(error.what()) + ")");
  }

  Bundle bundle_;
  std::shared_ptr<paddle_infer::Predictor> predictor_;
  std::unique_ptr<paddle_infer::Tensor> input_, output_;
};

}  // namespace

const char* const kEngineFormat = "paddle";

std::unique_ptr<Engine> open_engine(const Bundle& bundle, int threads, bool gpu) {
#ifndef WITH_GPU
  if (gpu) throw RequestError("this program was built without -DWITH_GPU=ON; build it so, or leave out --gpu");
#endif
  return std::make_unique<PaddleEngine>(bundle, threads, gpu);
}

}  // namespace deploy
