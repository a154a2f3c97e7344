// director explain: what the rules make of a packet, without a device and without privilege.
#pragma once

#include <string>
#include <vector>

namespace director {

/// `words` are those behind "explain". Returns the exit code; throws StartupError.
int explain_command(const std::vector<std::string>& words);

}  // namespace director
