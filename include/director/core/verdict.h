// Verdict: what becomes of a frame, and why.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "director/base/id.h"

namespace director {

enum class Reason : std::uint8_t {
#define REASON(name, text) name,
#include "director/core/reasons.def"
#undef REASON
  kCount,
};
inline constexpr std::size_t kReasonCount = static_cast<std::size_t>(Reason::kCount);

namespace detail {
inline constexpr std::array<std::string_view, kReasonCount> kReasonNames{
#define REASON(name, text) #name,
#include "director/core/reasons.def"
#undef REASON
};
inline constexpr std::array<std::string_view, kReasonCount> kReasonTexts{
#define REASON(name, text) text,
#include "director/core/reasons.def"
#undef REASON
};
}  // namespace detail

[[nodiscard]] constexpr std::string_view name_of(Reason r) {
  return detail::kReasonNames[static_cast<std::size_t>(r)];
}
[[nodiscard]] constexpr std::string_view text_of(Reason r) {
  return detail::kReasonTexts[static_cast<std::size_t>(r)];
}

enum class Action : std::uint8_t {
  transmit,  ///< send the frame out of `egress`
  drop,      ///< it ends here (or lives on in frames the balancer emitted, or in a copy it holds)
  pass,      ///< not ours: leave it to the host's own stack
};

/// In eight bytes: one register, as every packet hands one up through all its functions.
struct [[nodiscard]] Verdict {
  DeviceId egress;  ///< with transmit
  Action action = Action::drop;
  Reason reason = Reason::none;

  static Verdict transmit(DeviceId egress, Reason reason = Reason::none) { return {egress, Action::transmit, reason}; }
  static Verdict drop(Reason reason) { return {{}, Action::drop, reason}; }
  static Verdict pass(Reason reason) { return {{}, Action::pass, reason}; }
};
static_assert(sizeof(Verdict) == 8);

/// "sent to back: forwarded as it should be"; `devices`: their names, by DeviceId.
[[nodiscard]] std::string words_of(const Verdict& verdict, std::span<const std::string> devices);

}  // namespace director
