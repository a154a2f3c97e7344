// Completion: how a command line of vsadm that somebody is typing may go on.
//
// The shells' completions (director/vsadm/completion/) call `vsadm complete WORD...` and show what it prints. Options come from the
// grammar itself (command_line.h), services and servers from the director. Pure: the table is asked for only when it is needed.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "director/vsadm/snapshot.h"

namespace director::vsadm {

struct Completion {
  std::vector<std::string> words;  ///< whole words in place of the one being typed
  bool is_file = false;            ///< a file's name belongs here
};

/// `words`: behind the program's name; the last, which may be empty, is being typed. `table`: the director's, an empty one if there is none.
Completion complete(std::span<const std::string> words, const std::function<Snapshot()>& table);

}  // namespace director::vsadm
