// A verdict in words.
#include "director/core/verdict.h"

#include <fmt/format.h>

namespace director {

std::string words_of(const Verdict& verdict, std::span<const std::string> devices) {
  switch (verdict.action) {
    case Action::transmit: return fmt::format("sent to {}: {}", devices[verdict.egress.index], text_of(verdict.reason));
    case Action::drop: return fmt::format("dropped: {}", text_of(verdict.reason));
    case Action::pass: break;
  }
  return fmt::format("left to the host: {}", text_of(verdict.reason));
}

}  // namespace director
