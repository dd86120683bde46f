#!/usr/bin/env bash
# Installs what the build and the tests need and this machine lacks. Quick and silent when all is there.
set -euo pipefail

# command -> Debian package
needs=(
    "protoc protobuf-compiler"
    "gcc gcc"
    "pkg-config pkg-config"
    "etcd etcd-server"
    "etcdctl etcd-client"
    "dockerd docker.io"
    "docker docker.io"
    "docker-registry docker-registry"
    "qemu-system-x86_64 qemu-system-x86"
    "java default-jre-headless"
    "javac default-jdk-headless"
    "ip iproute2"
    "iptables iptables"
    "nginx nginx-light"
    "redis-server redis-server"
    "busybox busybox-static"
    "curl curl"
    "jq jq"
    "openssl openssl"
    "ps procps"
    "zip zip"
    "git git"
    "xz xz-utils"
    "bzip2 bzip2"
)

export PATH="$PATH:/usr/sbin:/sbin"

missing=()
for need in "${needs[@]}"; do
    read -r command package <<<"$need"
    command -v "$command" >/dev/null || missing+=("$package")
done
# Debian installs the CNI plugins beside the search path.
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
# The header files of libc come with the compiler only when it is asked for by its full name.
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
# protoc only recommends the well-known types that the files of etcd's client import.
[ -e /usr/include/google/protobuf/descriptor.proto ] || missing+=(libprotobuf-dev)

# Services stay off: the tests start their own on free ports.
keep_services_off() {
    local policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && return
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap "rm -f $policy" EXIT
}

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}" >&2
    if [ "$(id -u)" != 0 ]; then
        echo "setup: this needs root; run: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "setup: no apt-get here; install the equivalents of: ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    keep_services_off
    if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "setup: apt-get failed; the whole log is in $log" >&2
        exit 1
    fi
    rm -f "$log"
fi

if ! command -v "${CARGO:-cargo}" >/dev/null; then
    echo "setup: cargo is missing; install Rust 1.95 or newer with:" >&2
    echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env" >&2
    exit 1
fi
