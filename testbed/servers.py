# SPDX-License-Identifier: GPL-2.0-or-later
"""What the real servers serve: nginx's configuration and the files behind it.

Text and files only; cluster.py starts the programs. The name service is name_server.py.
"""

import random
from pathlib import Path

from topology import Node, Topology

BIG_FILE = "10M"  # random bytes, so that no damage can go unseen
HUGE_FILE = "1G"  # a hole: nothing is read from a disk, the network is what is measured
PORTS = (80, 8080)


def make_files(folder: Path) -> None:
    folder.mkdir()
    (folder / BIG_FILE).write_bytes(random.Random(10).randbytes(10 << 20))
    with (folder / HUGE_FILE).open("wb") as huge:
        huge.truncate(1 << 30)


def nginx_config(topology: Topology, server: Node, files: Path, scratch: Path) -> str:
    """One process, no root needed: `scratch` is the only place it writes to."""
    who = (
        f'"server": "{server.name}", "address": "$own_address", '
        f'"client": "$remote_addr", "port": $remote_port, '
        f'"to": "$to:$server_port", "mode": "{topology.mode}"'
    )
    everywhere = {"4": "", "6": "[::]:"}
    listen = "\n    ".join(f"listen {everywhere[family]}{port};" for family in topology.family for port in PORTS)
    temporary = "\n  ".join(
        f"{kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
master_process off;
user root;
pid {scratch}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;  # a kept connection is kept: `lab bench` asks more often than nginx's 1000
  types {{ }}
  default_type application/json;
  {temporary}
  # Where a request arrived: the server's address of that family, and as URLs have it before the port.
  map $server_addr $own_address {{ ~: "{server.ips[-1]}"; default "{server.ip}"; }}
  map $server_addr $to {{ ~: "[$server_addr]"; default "$server_addr"; }}
  server {{
    {listen}
    root {files};

    # One line of JSON: who answers, whom it saw, and the address the request was sent to when it arrived.
    location = / {{ return 200 '{{{who}}}\\n'; }}

    # A body is read and forgotten.
    location = /sink {{
      client_max_body_size 0;
      return 200;
    }}

    # The whole body is read into a file before the answer says how long it was.
    location = /post {{
      client_max_body_size 2g;
      client_body_in_file_only on;
      proxy_pass http://unix:{scratch}/answer.sock:/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Client $remote_addr;
      proxy_set_header Body-Length $content_length;
      proxy_set_header Body-File $request_body_file;
    }}
  }}
  server {{
    listen unix:{scratch}/answer.sock;
    location / {{
      return 200 '{{"server": "{server.name}", "client": "$http_client", "length": $http_body_length, \
"file": "$http_body_file"}}\\n';
    }}
  }}
}}
"""
