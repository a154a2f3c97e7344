// OptionWords: the words of `director replay` and `director explain`, one by one: --name VALUE, --name=VALUE, -x VALUE, and arguments.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <span>

#include "director/base/startup_error.h"
#include "director/core/balancer.h"

namespace director {

struct OptionWords {
  std::string_view task, usage;        // for complaints
  std::span<const std::string> words;  // still to be read
  std::string name = {};               // the word in hand, and what stood behind its '='
  std::optional<std::string> attached = {};

  bool next() {
    if (attached) refuse(name + " takes no value");
    if (words.empty()) return false;
    name = take();
    if (const std::size_t equals = name.find('='); name.starts_with("--") && equals != std::string::npos) {
      attached = name.substr(equals + 1);
      name.resize(equals);
    }
    return true;
  }
  std::string value() {
    if (attached) return *std::exchange(attached, {});
    return words.empty() ? refuse(name + " needs a value") : take();
  }
  Policy policy() {
    const std::string text = value();
    if (text != "improved" && text != "kernel") refuse(fmt::format("--policy: \"{}\" is neither improved nor kernel", text));
    return text == "kernel" ? Policy::kernel : Policy::improved;
  }
  std::string argument() { return name.starts_with('-') ? refuse("there is no option " + name) : name; }
  std::string take() { return std::exchange(words, words.subspan(1)).front(); }
  [[noreturn]] std::string refuse(const std::string& what) const {
    throw StartupError(ExitCode::usage, fmt::format("{}: {}\n{}", task, what, usage));
  }
};

}  // namespace director
