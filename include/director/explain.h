// Explain: one packet through the balancer, and everything it did with it: the decisions as the packet path told them
// (core/explanation.h), what was rewritten field by field, and what left.
//
// The packet is really processed: whoever wants to ask only asks a copy (in_a_copy.h). Used by `director explain` and `vsadm explain`.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "director/base/result.h"
#include "director/core/balancer.h"
#include "director/core/explanation.h"
#include "director/net/format.h"

namespace director {

struct Explained {
  /// A field of the packet that isn't what it was; empty: it wasn't there before, or isn't any more.
  struct Rewrite {
    std::string field;  ///< a name of packet text, source, target, or outer: the header of a tunnel
    std::string before;
    std::string after;
    friend bool operator==(const Rewrite&, const Rewrite&) = default;
  };
  struct Sent {
    std::string device;
    std::string packet;  ///< packet text, brief
  };

  std::string packet;  ///< packet text, brief
  Explanation how;
  Verdict verdict;
  std::vector<Rewrite> rewrites;  ///< of a packet that went on; not of answers
  std::vector<Sent> sent;         ///< in order: the packet, its pieces, answers, and questions for neighbours
};

/// Processes the frame. The outbox is looked at and left as it is.
Explained explain(Balancer& balancer, Frame& frame, Instant now);

/// What is different between a packet and what became of it.
std::vector<Explained::Rewrite> rewrites(const PacketText& before, const PacketText& after);

/// A packet that somebody describes, on its way to the director: built as the frame it would come as, from where its source is, and
/// explained. The error says what is wrong with the text, and at which column.
Result<Explained> explain_text(Balancer& balancer, std::string_view packet, Instant now);

/// The packets of a command line: one a word; or, as typed without quotes, one in all words.
[[nodiscard]] std::vector<std::string> packets_in(std::span<const std::string> words);

/// The address a frame's packet comes from, if it can be read.
[[nodiscard]] std::optional<IpAddress> source_of(std::span<const std::byte> bytes);

enum class Colour : bool { off, on };
[[nodiscard]] std::string explanation_text(const Explained& explained, Colour colour);
/// A JSON array, one object a packet.
[[nodiscard]] std::string explanation_json(std::span<const Explained> explained);

}  // namespace director
