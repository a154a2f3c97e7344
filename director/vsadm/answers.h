// Answers to the director's questions (lookups.h): names by the resolver, standard input, files the caller named.
//
// May wait: that is why the control tool does it and not the director.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "director/base/result.h"

namespace director::vsadm {

/// The answer, which may be that there is none; an error when the caller has to be told instead. `words` is the command line:
/// no file is read that isn't named there, whoever asks.
Result<std::optional<std::string>> answer_to(std::string_view question, std::span<const std::string> words);

}  // namespace director::vsadm
