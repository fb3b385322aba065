// JPEG by libjpeg-turbo, the library inside Pillow: another decoder's pixels differ by a few grey levels.
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>
#include <jerror.h>

#include "error.h"
#include "image.h"

namespace deploy {
namespace {

struct Decoder {
  jpeg_decompress_struct info;
  jpeg_error_mgr errors;
  std::jmp_buf on_error;
  char message[JMSG_LENGTH_MAX];
};

// libjpeg leaves through here on an error it cannot mend; it is C, so no exception may cross it.
void leave(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  info->err->format_message(info, decoder->message);
  std::longjmp(decoder->on_error, 1);
}

// By default it paints what is missing of a file that was cut off, and only warns.
void warn(j_common_ptr info, int level) {
  if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) leave(info);
}

bool start(Decoder& decoder, const std::vector<uint8_t>& file) {
  if (setjmp(decoder.on_error)) return false;
  jpeg_create_decompress(&decoder.info);
  jpeg_save_markers(&decoder.info, JPEG_APP0 + 1, 0xffff);
  jpeg_mem_src(&decoder.info, file.data(), file.size());
  jpeg_read_header(&decoder.info, TRUE);
  return true;
}

bool decode(Decoder& decoder, uint8_t* pixels) {
  if (setjmp(decoder.on_error)) return false;
  jpeg_start_decompress(&decoder.info);
  while (decoder.info.output_scanline < decoder.info.output_height) {
    JSAMPROW row = pixels + static_cast<size_t>(decoder.info.output_scanline) * decoder.info.output_width *
                                decoder.info.output_components;
    jpeg_read_scanlines(&decoder.info, &row, 1);
  }
  jpeg_finish_decompress(&decoder.info);
  return true;
}

// Grey, RGB, or CMYK as Adobe stores it, inverted -> RGB.
std::vector<uint8_t> as_rgb(std::vector<uint8_t> pixels, int components) {
  if (components == 3) return pixels;
  std::vector<uint8_t> rgb(pixels.size() / components * 3);
  const uint8_t* in = pixels.data();
  for (size_t i = 0; i < rgb.size(); i += 3, in += components)
    for (int c = 0; c < 3; ++c)  // with what is stored inverted, ink c and black leave in[c] * in[3] of the light
      rgb[i + c] = components == 1 ? in[0] : in[3] - div255((255 - in[c]) * in[3]);
  return rgb;
}

}  // namespace

Image decode_jpeg(const std::vector<uint8_t>& file, int& orientation) {
  Decoder decoder{};
  decoder.info.err = jpeg_std_error(&decoder.errors);
  decoder.info.client_data = &decoder;
  decoder.errors.error_exit = leave;
  decoder.errors.emit_message = warn;
  struct Cleanup {
    jpeg_decompress_struct* info;
    ~Cleanup() { jpeg_destroy_decompress(info); }
  } cleanup{&decoder.info};
  const auto refuse = [&] {
    throw RequestError("cannot be read as a JPEG (" + std::string(decoder.message) + ")");
  };

  if (!start(decoder, file)) refuse();
  const int64_t pixels = static_cast<int64_t>(decoder.info.image_width) * decoder.info.image_height;
  if (pixels > kMaxPixels) throw RequestError("has more pixels than is safe to read");
  const int components = decoder.info.num_components;
  if (components != 1 && components != 3 && components != 4)
    throw RequestError("is a JPEG of " + std::to_string(components) + " colours, which has no agreed meaning");
  decoder.info.out_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
  for (auto* marker = decoder.info.marker_list; marker != nullptr; marker = marker->next)
    if (marker->data_length > 6 && std::memcmp(marker->data, "Exif\0\0", 6) == 0) {
      orientation = exif_orientation(marker->data + 6, marker->data_length - 6);
      break;
    }

  Image image;
  image.width = static_cast<int>(decoder.info.image_width);
  image.height = static_cast<int>(decoder.info.image_height);
  std::vector<uint8_t> decoded(static_cast<size_t>(pixels) * components);
  if (!decode(decoder, decoded.data())) refuse();
  image.rgb = as_rgb(std::move(decoded), components);
  return image;
}

}  // namespace deploy
