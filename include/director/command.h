// Command: one request of the control tool, from its words to the answer.
//
// Pure but for what it tells the balancer. Speaks ipvsadm's grammar (command_line.h) and, for the program name vsadm, a few words
// beyond it: apply, drain, reasons, tune. Called as ipvsadm-save or ipvsadm-restore it is those programs. Used by the
// control socket, by replay for the commands of a case, and by tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "director/base/time.h"
#include "director/control/message.h"
#include "director/core/balancer.h"

namespace director {

/// Does what the request says; all of it, or nothing when the exit code isn't 0. `done`, if there is one, gets the changes that were made.
Answer run_command(const Request& request, Balancer& balancer, Instant now, std::vector<Change>* done = nullptr);

/// The same as it goes over the socket.
std::string serve_command(std::string_view message, Balancer& balancer, Instant now, std::vector<Change>* done = nullptr);

}  // namespace director
