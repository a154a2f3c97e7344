// ECMA-48 escapes that every terminal since the VT100 knows, and the alternate screen of xterm.
#include "director/vsadm/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace director::vsadm {
namespace {

constexpr std::string_view kEnter =
    "\x1b[?1049h\x1b[?25l\x1b[?7l";  // alternate screen; no cursor; no wrapping
constexpr std::string_view kLeave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr std::string_view kHome = "\x1b[H";
constexpr std::string_view kClearLine = "\x1b[K";
constexpr std::string_view kClearBelow = "\x1b[J";
constexpr std::string_view kReverse = "\x1b[7m";
constexpr std::string_view kNormal = "\x1b[m";

constexpr int kEnding[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

termios g_before{};  // for the signal handlers

void put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t some = write(STDOUT_FILENO, text.data(), text.size());
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) return;  // whoever looked has gone; wait() will notice
    text.remove_prefix(static_cast<std::size_t>(some));
  }
}

void enter() {
  termios raw = g_before;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  put(kEnter);
}

void leave() {
  put(kLeave);
  tcsetattr(STDIN_FILENO, TCSANOW, &g_before);
}

/// Of the handlers below everything is async-signal-safe (signal-safety(7)).
void give_back_and_die(int number) {
  leave();
  std::signal(number, SIG_DFL);
  raise(number);  // delivered when the handler returns
}

void suspend(int) {
  const int error = errno;
  leave();
  raise(SIGSTOP);  // until SIGCONT
  enter();
  errno = error;
}

void on_signal(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigfillset(&action.sa_mask);
  sigaction(number, &action, nullptr);
}

/// Signals that only wait() lets through, so that none is missed between two looks at the window.
sigset_t redrawing() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGWINCH);
  sigaddset(&set, SIGTSTP);
  return set;
}

Terminal::Key key_of(std::string_view sequence) {
  using Key = Terminal::Key;
  static constexpr std::pair<std::string_view, Key> kKeys[] = {
      {"[A", Key::up},       {"[B", Key::down},       {"[C", Key::right}, {"[D", Key::left}, {"OA", Key::up},
      {"OB", Key::down},     {"OC", Key::right},      {"OD", Key::left},  {"[H", Key::home}, {"[F", Key::end},
      {"[5~", Key::page_up}, {"[6~", Key::page_down}, {"OH", Key::home},  {"OF", Key::end}};
  const auto found = std::ranges::find(kKeys, sequence, [](const auto& pair) { return pair.first; });
  return found == std::end(kKeys) ? Key::other : found->second;
}

}  // namespace

bool Terminal::available() {
  const char* const kind = std::getenv("TERM");
  return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && kind != nullptr &&
         std::string_view{kind} != "dumb";
}

Terminal::Terminal() {
  tcgetattr(STDIN_FILENO, &g_before);
  const sigset_t held = redrawing();
  sigprocmask(SIG_BLOCK, &held, nullptr);
  for (const int number : kEnding) on_signal(number, give_back_and_die);
  on_signal(SIGTSTP, suspend);
  on_signal(SIGWINCH, [](int) {});
  enter();
}

Terminal::~Terminal() {
  leave();
  for (const int number : kEnding) std::signal(number, SIG_DFL);
  std::signal(SIGTSTP, SIG_DFL);
  const sigset_t held = redrawing();
  sigprocmask(SIG_UNBLOCK, &held, nullptr);
}

Window Terminal::window() const {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) return {};
  return {size.ws_row, size.ws_col};
}

void Terminal::show(const std::vector<std::string>& lines, std::size_t reversed) const {
  std::string text{kHome};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) text += '\n';
    if (i == reversed) text += kReverse;
    text += lines[i];
    if (i == reversed) text += kNormal;
    text += kClearLine;
  }
  text += kClearBelow;
  put(text);
}

Terminal::Input Terminal::wait(Duration longest) const {
  pollfd keyboard{STDIN_FILENO, POLLIN, 0};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(std::max(longest, Duration{}));
  const timespec most{seconds.count(), (std::max(longest, Duration{}) - seconds).count()};
  sigset_t all_through;
  sigemptyset(&all_through);
  const int ready = ppoll(&keyboard, 1, &most, &all_through);
  if (ready < 0) return {errno == EINTR ? Key::redraw : Key::closed, 0};
  if (ready == 0) return {};
  std::array<char, 32> buffer;
  const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
  if (got <= 0) return {Key::closed, 0};
  const std::string_view typed{buffer.data(), static_cast<std::size_t>(got)};
  if (typed.size() > 1 && typed.front() == '\x1b') return {key_of(typed.substr(1)), 0};
  return {Key::other, typed.front()};
}

}  // namespace director::vsadm
