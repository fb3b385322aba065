#include "arguments.h"

#include <algorithm>
#include <charconv>
#include <thread>

#include "error.h"

namespace deploy {
namespace {

int at_least_one(const std::string& option, const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1'000'000)
    throw RequestError(option + " takes a whole number from 1 to 1000000, not \"" + text + "\"");
  return value;
}

}  // namespace

std::string usage(const std::string& program) {
  return "usage: " + program +
         " BUNDLE IMAGE... [options]\n\n"
         "Classify image files with an exported bundle.\n\n"
         "  --batch N           images per run of the model (1)\n"
         "  --threads N         CPU threads (all there are)\n"
         "  --repeat N          run the first batch N times more and say how long it takes\n"
         "  --top N             classes to show for each image (5)\n"
         "  --precision NAME    of the bundle's model to run (fp32)\n"
         "  --gpu               run on the first GPU\n"
         "  --json              print one JSON object instead\n"
         "  --dump-input FILE   write the model's input as .npy, float32 [images, 3, crop, crop]\n";
}

Arguments parse(int count, char** values) {
  Arguments arguments;
  std::vector<std::string> words(values + 1, values + count), positional;
  bool options_end = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (options_end || word.size() < 2 || word[0] != '-') {
      positional.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    const std::string option = word.substr(0, equals);
    const auto value = [&]() -> std::string {
      if (equals != std::string::npos) return word.substr(equals + 1);
      if (i + 1 == words.size()) throw RequestError(option + " needs a value");
      return words[++i];
    };
    if (word == "--") options_end = true;
    else if (word == "--help" || word == "-h") arguments.help = true;
    else if (word == "--gpu") arguments.gpu = true;
    else if (word == "--json") arguments.json = true;
    else if (option == "--batch") arguments.batch = at_least_one(option, value());
    else if (option == "--threads") arguments.threads = at_least_one(option, value());
    else if (option == "--repeat") arguments.repeat = at_least_one(option, value());
    else if (option == "--top") arguments.top = at_least_one(option, value());
    else if (option == "--precision") arguments.precision = value();
    else if (option == "--dump-input") arguments.dump_input = value();
    else throw RequestError("no option " + word + "; --help lists them");
  }
  if (arguments.help) return arguments;
  if (positional.size() < 2) throw RequestError("name a bundle and at least one image; --help says more");
  arguments.bundle = positional[0];
  arguments.images.assign(positional.begin() + 1, positional.end());
  if (arguments.threads == 0) arguments.threads = std::max(1u, std::thread::hardware_concurrency());
  return arguments;
}

}  // namespace deploy
