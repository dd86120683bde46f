#!/usr/bin/env bash
# docker.sh start|stop: a Docker daemon for the tests, where none answers yet. Its files are under .dev/docker.
# `start` prints "started" when it started one, so that the caller knows to stop it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"

dir=$PWD/.dev/docker
pidfile=$dir/dockerd.pid

answers() { docker version >/dev/null 2>&1; }

try() {
    local driver=$1
    rm -f "$pidfile"
    setsid dockerd --pidfile "$pidfile" --data-root "$dir/$driver" --exec-root "$dir/run" \
        --storage-driver "$driver" >>"$dir/log" 2>&1 </dev/null &
    local daemon=$!
    for _ in $(seq 300); do
        answers && return 0
        kill -0 "$daemon" 2>/dev/null || return 1
        sleep 0.1
    done
    kill "$daemon" 2>/dev/null || true
    return 1
}

case ${1:-} in
start)
    answers && exit 0
    mkdir -p "$dir"
    : >"$dir/log"
    # vfs works where the file system cannot be stacked, for example inside a container.
    for driver in overlay2 vfs; do
        if try "$driver"; then
            echo started
            exit 0
        fi
    done
    tail -n 20 "$dir/log" >&2
    echo "docker: dockerd does not start; its log is in $dir/log" >&2
    exit 1
    ;;
stop)
    [ -e "$pidfile" ] || exit 0
    daemon=$(cat "$pidfile")
    kill "$daemon" 2>/dev/null || exit 0
    for _ in $(seq 200); do
        kill -0 "$daemon" 2>/dev/null || exit 0
        sleep 0.1
    done
    kill -9 "$daemon" 2>/dev/null || true
    ;;
*)
    echo "usage: scripts/docker.sh start|stop" >&2
    exit 2
    ;;
esac
