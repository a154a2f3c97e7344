// Offload in words, and back: how a recording says what is still to be done to a frame, for people and for a replay alike.
#pragma once

#include <string>
#include <string_view>

#include "director/net/offload.h"

namespace director {

/// "checksum left to the device (34+16)", "super-frame of 1448-byte segments (tcp4, headers 66)", joined by "; "; empty: a frame as it is
/// on the wire.
[[nodiscard]] std::string words_of(const Offload& offload);
/// What such words say, wherever in `text` they stand.
[[nodiscard]] Offload offload_in(std::string_view text);

}  // namespace director
