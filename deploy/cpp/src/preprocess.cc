#include "preprocess.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "resize.h"

namespace deploy {
namespace {

Image square(const Image& image, const Recipe& recipe) {
  const int crop = recipe.crop;
  const bool opencv = recipe.filter == Filter::bilinear_opencv;
  int64_t width = crop, height = crop;
  if (recipe.resize) {
    const int short_to = *recipe.resize;
    const auto [short_side, long_side] = std::minmax(image.width, image.height);
    // As their origins compute it: PaddleClas in floating point, torchvision in whole numbers.
    const int64_t long_to = opencv ? std::llrint(long_side * (static_cast<double>(short_to) / short_side))
                                   : static_cast<int64_t>(short_to) * long_side / short_side;
    width = image.width <= image.height ? short_to : long_to;
    height = image.width <= image.height ? long_to : short_to;
  }
  if (width * std::max<int64_t>(height, image.height) > kMaxPixels)
    throw RequestError(std::to_string(image.width) + " x " + std::to_string(image.height) +
                       " pixels is too long and thin to resize; crop it first");
  // std::nearbyint rounds halves to the even side, as Python's round does.
  const auto offset = [&](int64_t side) {
    return static_cast<int>(opencv ? (side - crop) / 2 : std::nearbyint((side - crop) / 2.0));
  };
  return resize_and_crop(image, static_cast<int>(width), static_cast<int>(height),
                         {offset(width), offset(height), crop, crop}, recipe.filter);
}

}  // namespace

void preprocess(const Image& image, const Recipe& recipe, float* into) {
  const Image input = square(image, recipe);
  const size_t plane = static_cast<size_t>(recipe.crop) * recipe.crop;
  for (int c = 0; c < 3; ++c) {
    float table[256];
    for (int value = 0; value < 256; ++value)
      table[value] = (static_cast<float>(value) / 255.0f - recipe.mean[c]) / recipe.std[c];
    for (size_t i = 0; i < plane; ++i) into[c * plane + i] = table[input.rgb[i * 3 + c]];
  }
}

}  // namespace deploy
