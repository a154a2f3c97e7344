// The census, a portion at a time.
#include "director/http/census.h"

namespace director {

const ConnectionCounts& ConnectionCensus::ask(Instant now) {
  if (next_ == kNever) {
    counting_ = {};
    row_ = 0;
    count_portion(now);
  }
  return finished_;
}

void ConnectionCensus::due(Instant now) {
  if (next_ <= now) count_portion(now);
}

void ConnectionCensus::count_portion(Instant now) {
  row_ = balancer_.for_some_connections(row_, kPortion, now, [this](const Balancer::ConnectionRow& c) {
    if (c.is_template) {
      ++counting_.templates;
      return;
    }
    const auto row = c.protocol == Protocol::udp    ? ConnectionCounts::udp
                     : c.protocol == Protocol::sctp ? ConnectionCounts::sctp
                                                    : ConnectionCounts::tcp;
    ++counting_.by_state[row][static_cast<std::size_t>(c.state)];
  });
  next_ = row_ == 0 ? kNever : now + kBetween;
  if (row_ == 0) finished_ = counting_;
}

}  // namespace director
