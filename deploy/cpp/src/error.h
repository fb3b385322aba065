// The two ways a run can go wrong. Messages are one line: what is wrong, then what to do about it.
#pragma once

#include <stdexcept>

namespace deploy {

// The request is wrong: the arguments, the bundle or an image. Exit status 2.
struct RequestError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The engine failed. Exit status 1.
struct EngineError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace deploy
