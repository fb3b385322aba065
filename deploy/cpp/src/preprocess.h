// From an image to the model's input, by the recipe in the manifest.
#pragma once

#include "bundle.h"
#include "image.h"

namespace deploy {

// Writes float32 [3, crop, crop] to `into`. Throws RequestError for a picture too long and thin to resize.
void preprocess(const Image& image, const Recipe& recipe, float* into);

}  // namespace deploy
