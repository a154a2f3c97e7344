# The image: director, vsadm and realserver on a slim Debian, and what they link to.
#   docker build -t director .
# build -> test -> runtime: no image without passed unit tests. How to run it: testbed/docker/README.md.
ARG BASE=debian:bookworm-slim

# --- build: the programs -------------------------------------------------------------------------------------------
FROM ${BASE} AS build
WORKDIR /src
# The one list of packages is the lab's.
COPY testbed/bootstrap.sh testbed/
RUN . testbed/bootstrap.sh \
 && apt-get update \
 && apt-get install -y --no-install-recommends $packages_build libgtest-dev \
 && rm -rf /var/lib/apt/lists/*
COPY CMakeLists.txt CMakePresets.json ./
COPY include include
COPY director director
RUN cmake --preset release -D DIRECTOR_TESTS=OFF \
 && cmake --build --preset release \
 && install -D --strip --target-directory=/out build-release/director build-release/vsadm build-release/realserver

# --- test: unit and golden tests, with no privilege and no network ---------------------------------------------------
FROM build AS test
COPY tests tests
RUN cmake --preset release -D DIRECTOR_TESTS=ON \
 && cmake --build --preset release \
 && ctest --test-dir build-release -L unit --output-on-failure --no-tests=error

# --- runtime ---------------------------------------------------------------------------------------------------------
FROM ${BASE} AS runtime
# iproute2 and nftables are for looking: `docker exec NAME ip address`, `nft list ruleset`.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libboost-program-options1.74.0 libbpf1 libcap-ng0 libfmt9 libmicrohttpd12 libmnl0 libnftnl11 iproute2 nftables \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
 && mkdir /run/director
# From the tested tree, so that the tests are a condition of the image.
COPY --from=test /out/ /usr/local/bin/
LABEL org.opencontainers.image.title="director" \
      org.opencontainers.image.description="Layer-4 load balancer as the Linux Virtual Server, in user space: NAT, tunnel, direct routing" \
      org.opencontainers.image.licenses="GPL-2.0-or-later"
STOPSIGNAL SIGTERM
# Asks over the control socket; move that with DIRECTOR_CONTROL, which both programs read.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["vsadm", "-L", "-n"]
ENTRYPOINT ["director"]
CMD ["--help"]
