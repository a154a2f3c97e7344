// Unbuilt: what the grammar understands and the core doesn't do yet, refused instead of ignored.
//
// Used wherever an operator's rules come in. A replay takes them all, as its cases may be about the tables alone. What gets built
// leaves this list; when the list is empty, the file goes.
#pragma once

#include <optional>
#include <string>

#include "director/core/change.h"

namespace director {

/// A sentence about what this change asks for in vain; nothing: all of it is built.
std::optional<std::string> unbuilt(const Change& change);

}  // namespace director
