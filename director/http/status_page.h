// The status page, as the build embeds it from status.html (embed.cmake).
#pragma once

#include <string_view>

namespace director {

extern const std::string_view kStatusPage;
/// Its Content-Security-Policy: its own style and script by their hashes, its own origin to ask, nothing else.
extern const std::string_view kStatusPagePolicy;

}  // namespace director
