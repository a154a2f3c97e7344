// `director replay`: a capture case through the core, what it would send as a capture, what it would list as text.
#pragma once

#include <string>
#include <vector>

namespace director {

/// The words behind "replay". Returns the exit code; throws StartupError for words and files that are wrong.
int replay_command(const std::vector<std::string>& words);

}  // namespace director
