// What core_bench consists of; each is in the file of its name.
#pragma once

#include "measure.h"

namespace director::bench {

void add_piece_benches(const Options& options);   ///< parse_packet, each forwarder: nothing but themselves
void add_packet_benches(const Options& options);  ///< process(): batches of packets at tables of every size
void add_table_benches(const Options& options);   ///< expiry, growth, memory
void add_config_benches(const Options& options);  ///< services, servers, Maglev's table

}  // namespace director::bench
