# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034
# What testbed/lab and tests/run share: the one list of Debian packages, and how they and the build are made sure of.
# Sourced by POSIX sh; needs $root, the project's folder. Says what it does on standard error.

packages_build="g++ cmake ninja-build pkg-config libmnl-dev libnftnl-dev libcap-ng-dev libfmt-dev \
libboost-program-options-dev nlohmann-json3-dev libxxhash-dev gcc-bpf libbpf-dev libmicrohttpd-dev"
packages_lab="python3 iproute2 nftables nginx curl procps"
# Of lab bench: the load, and the director's peers.
packages_bench_lab="wrk haproxy libnginx-mod-stream"
# The kernel's own IPVS, and the program that drives it, for tests/oracle: neither touches this machine's kernel. An init script of
# ipvsadm's loads rules at boot only when /etc/default/ipvsadm says so, and install_packages lets nothing start.
packages_oracle="user-mode-linux ipvsadm"
packages_test="libgtest-dev python3-pytest python3-scapy ethtool tcpdump bind9-dnsutils iputils-ping \
clang libclang-rt-14-dev $packages_oracle $packages_bench_lab"
# Written for the kernel's IPVS, and tests as they are: ldirectord steers the director through vsadm, the exporter reads its
# --proc-dir. Recommended packages (a syslog daemon, more collectors) stay out.
packages_test="$packages_test ldirectord prometheus-node-exporter util-linux"
# What reads the director's metrics in earnest: the parser of Prometheus's Python client, and a server that scrapes a lab.
packages_test="$packages_test python3-prometheus-client prometheus"
# The status page is looked at in a browser (130 MB to fetch, installed in 46 s on a busy machine).
packages_test="$packages_test chromium"
# What reads a recording as the users of Wireshark do.
packages_test="$packages_test tshark"
# Completion is tried in the shells people type in.
packages_test="$packages_test zsh"
# What tests/bench/run needs beyond the build.
packages_bench="libbenchmark-dev valgrind git"
# What the tests of the image need; an engine or compose that is there already is used (docker_packages).
packages_docker="docker.io docker-compose mmdebstrap"

note() { printf '%s\n' "$*" >&2; }

# lacking PACKAGE...: those that are not installed. Where there is no dpkg, the build itself will tell.
lacking() {
  command -v dpkg-query >/dev/null || return 0
  there=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true) "
  for package in "$@"; do
    case "$there" in *" installed:$package "*) ;; *) printf '%s ' "$package" ;; esac
  done
}

# docker_packages: which of them root's tests lack. Docker's own packages and Debian's exclude each other.
docker_packages() {
  [ "$(id -u)" = 0 ] || return 0
  for package in $packages_docker; do
    case "$package" in
      docker.io) command -v dockerd || docker info ;;
      docker-compose) command -v docker-compose || docker compose version ;;
      *) false ;;
    esac >/dev/null 2>&1 || printf '%s ' "$package"
  done
}

# ensure_packages PACKAGE...: root installs what is missing; anybody else is told the command. A no-op takes 20 ms.
ensure_packages() {
  missing=$(lacking "$@")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    note "$(basename "$0"): packages are missing; type: sudo apt-get install --no-install-recommends $missing"
    exit 4
  fi
  note "$(basename "$0"): installing with apt-get: $missing"
  # shellcheck disable=SC2086  # a list of words
  install_packages $missing
}

install_packages() (
  log=$(mktemp)
  # Debian would start nginx, haproxy, docker, ldirectord and the exporter as services of this machine; lab and tests want the programs only.
  policy=/usr/sbin/policy-rc.d
  trap 'rm -f "$log" "$log.failed" "${made_policy:-}"' EXIT
  trap 'exit 130' INT TERM HUP
  if [ ! -e "$policy" ]; then
    made_policy=$policy
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  fresh=
  for service in nginx:nginx.service haproxy:haproxy.service ldirectord:ldirectord.service prometheus:prometheus.service \
    prometheus-node-exporter:prometheus-node-exporter.service dockerd:docker.socket dockerd:docker.service containerd:containerd.service; do
    command -v "${service%%:*}" >/dev/null || fresh="$fresh $service"
  done
  if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    apt_get update
  fi
  if ! apt_get install -y --no-install-recommends "$@"; then
    note "  once more, with fresh package lists"
    apt_get update
    apt_get install -y --no-install-recommends "$@" || {
      tail -n 20 "$log" >&2
      note "apt-get could not install: $*"
      exit 4
    }
  fi
  if [ -d /run/systemd/system ]; then
    for service in $fresh; do
      ! command -v "${service%%:*}" >/dev/null || systemctl disable --quiet "${service#*:}" || true
    done
  fi
)

# apt_get WORDS: apt's own messages go to $log, its progress becomes one line per ten per cent.
apt_get() {
  rm -f "$log.failed"
  { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o APT::Status-Fd=3 "$@" \
    3>&1 >>"$log" 2>&1 </dev/null || : >"$log.failed"; } | show_progress "$1"
  [ ! -e "$log.failed" ]
}

# Lines are kind:package:percent:text (apt's Status-Fd). Downloading and installing count to 100 each.
show_progress() {
  shown=
  while IFS=: read -r kind _ percent text; do
    case "$kind" in
      dlstatus) what=download ;;
      pmstatus) what=unpack ;;
      *) continue ;;
    esac
    [ "$1" = update ] && what='package lists'
    tens="$what ${percent%%.*}"
    tens=${tens%?}
    [ "$tens" = "$shown" ] && continue
    shown=$tens
    printf '  %-13s %3s%%  %s\n' "$what" "${percent%%.*}" "$text" >&2
  done
}

# build_programs PRESET FOLDER TARGET...: configures when it must, compiles what changed; silent when there is nothing to do.
build_programs() {
  preset=$1 build=$root/$2
  shift 2
  if [ ! -w "$root" ]; then
    [ -x "$build/director" ] && return 0
    note "$(basename "$0"): $root can't be written to; clone it to a folder of yours, or let root build it once"
    exit 4
  fi
  mkdir -p "$build"
  (
    flock 9 # two labs started at once build once
    if [ ! -f "$build/build.ninja" ] || ! bpf_gcc_as_then; then
      note "$(basename "$0"): configuring the build"
      # The unit tests need packages that a lab does not; tests/run turns them on.
      [ -z "$(lacking libgtest-dev)" ] && tests=ON || tests=OFF
      (cd "$root" && cmake --preset "$preset" -D DIRECTOR_TESTS=$tests >"$build/configure.log" 2>&1) || {
        tail -n 20 "$build/configure.log" >&2
        note "$(basename "$0"): cmake could not configure the build"
        exit 4
      }
    fi
    case $(ninja -C "$build" -n "$@" 2>&1 | tail -n 1) in
      *'no work to do.') ;;
      *)
        note "$(basename "$0"): building $*"
        ninja -C "$build" "$@" 9>&- >&2 || exit 1
        ;;
    esac
  ) 9>"$build/.lock"
}

# bpf_gcc_as_then: not when bpf-gcc came after the build was configured; without it that has no shortcuts.
bpf_gcc_as_then() {
  grep -q '^BPF_GCC:.*[^D]$' "$build/CMakeCache.txt" || ! command -v bpf-gcc >/dev/null
}
