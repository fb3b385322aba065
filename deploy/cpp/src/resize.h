// The two ways of resizing that models are trained behind, to the bit: Pillow's (rows first,
// as all its versions before 13 do) and OpenCV's.
#pragma once

#include "bundle.h"
#include "image.h"

namespace deploy {

struct Box {
  int left, top, width, height;
};

// The part `box` of what `image` is after resizing it to width x height. Only that part is computed.
Image resize_and_crop(const Image& image, int width, int height, const Box& box, Filter filter);

}  // namespace deploy
