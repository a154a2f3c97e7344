// Terminal: the window somebody looks at, while it is ours: an alternate screen that is redrawn, and keys that are read one by one.
//
// However the program ends, the terminal is as it was before: signals that end or suspend it give the screen back first. One at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "director/base/time.h"
#include "director/vsadm/top_table.h"

namespace director::vsadm {

class Terminal {
 public:
  /// Whether standard input and output are a terminal that can do all this.
  [[nodiscard]] static bool available();

  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  [[nodiscard]] Window window() const;
  /// One of the lines is shown in reverse.
  void show(const std::vector<std::string>& lines, std::size_t reversed) const;

  enum class Key : std::uint8_t {
    none,    ///< the time is up
    redraw,  ///< the window changed, or the program was suspended
    closed,  ///< nobody is there any more
    up,
    down,
    left,
    right,
    page_up,
    page_down,
    home,
    end,
    other,  ///< see letter
  };
  struct Input {
    Key key = Key::none;
    char letter = 0;
  };
  /// What comes first: a key, a change of the window, or the time's end.
  [[nodiscard]] Input wait(Duration longest) const;
};

}  // namespace director::vsadm
