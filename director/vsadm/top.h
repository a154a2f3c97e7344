// Top: `vsadm top`, a table of the director's services that is drawn again and again.
#pragma once

#include <span>
#include <string>

#include "director/vsadm/director_link.h"

namespace director::vsadm {

/// Until somebody ends it, its tables are counted off, or the director doesn't answer any more. `words`: behind "top".
/// Returns the exit code; complaints are printed.
int top(const DirectorLink& director, const std::string& program, std::span<const std::string> words);

}  // namespace director::vsadm
