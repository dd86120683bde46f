#!/usr/bin/env bash
# demo.sh <herder>: a whole cluster in one process, on a free port; runs a service and a batch job, looks at them,
# and cleans up. Ends with the name of the step that failed, if one did.
set -euo pipefail
cd "$(dirname "$0")/.."

herder=$(realpath "$1")
dir=$(mktemp -d "${TMPDIR:-/tmp}/herder-demo.XXXXXX")
agent=
step="prepare"

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ]; then
        echo "demo: failed at: $step" >&2
        if [ -s "$dir/agent.log" ]; then
            echo "demo: the agent's last words:" >&2
            tail -n 20 "$dir/agent.log" >&2
        fi
    fi
    if [ -n "$agent" ] && kill -0 "$agent" 2>/dev/null; then
        kill -INT "$agent" 2>/dev/null || true
        for _ in $(seq 300); do
            kill -0 "$agent" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$agent" 2>/dev/null || true
    fi
    # Only after a crash: an agent that ends leaves nothing mounted.
    awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | xargs -r umount --lazy || true
    rm -rf "$dir" || true
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

run() {
    printf '\n\033[1m$ herder %s\033[0m\n' "$*"
    "$herder" "$@"
}

# Tries a command until it succeeds, for at most so many seconds.
within() {
    local seconds=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "demo: not within $seconds s: $*" >&2
            return 1
        fi
        if [ -n "$agent" ] && ! kill -0 "$agent" 2>/dev/null; then
            echo "demo: the agent has ended by itself" >&2
            return 1
        fi
        sleep 0.1
    done
}

step="start an agent"
# Port 0: the system chooses a free one, and the agent says which.
printf 'name  = "demo"\nports { http = 0 }\n' >"$dir/agent.hcl"
unset "${!NOMAD_@}" "${!HERDER_@}"
TMPDIR=$dir "$herder" agent -dev -config "$dir/agent.hcl" >"$dir/agent.log" 2>&1 </dev/null &
agent=$!
listening() { grep -q 'agent started' "$dir/agent.log"; }
within 30 listening
NOMAD_ADDR=http://$(sed -n 's/^ *Advertise Addrs: HTTP: *//p' "$dir/agent.log")
export NOMAD_ADDR
echo "An agent serves $NOMAD_ADDR: server, node agent and the embedded store in one process."
node_ready() { "$herder" node status 2>/dev/null | grep -q ready; }
within 30 node_ready
run node status

step="run the batch job"
run job run examples/hello-batch.nomad.hcl
step="wait for the batch job's words"
said() { "$herder" alloc logs -job hello 2>/dev/null | grep -q Hello; }
within 30 said
run alloc logs -job hello

step="run the service"
run job run examples/web.nomad.hcl
step="see the service"
run job status
run job status web
run service info web

step="fetch the page"
address=$("$herder" service info -json web | jq -r '.[0] | "\(.Address):\(.Port)"')
printf '\n\033[1m$ curl http://%s/\033[0m\n' "$address"
curl --silent --show-error --fail --max-time 10 "http://$address/" | tee "$dir/page.html"
grep -q Herder "$dir/page.html"

step="stop the jobs"
run job stop web
run job stop -detach hello
gone() { ! curl --silent --output /dev/null --max-time 2 "http://$address/"; }
step="wait for the service to be gone"
within 30 gone

step="end the agent"
ending=$agent agent=
kill -INT "$ending"
ended() { ! kill -0 "$ending" 2>/dev/null; }
within 30 ended || { kill -KILL "$ending" && false; }
if [ -n "$(find "$dir" -mindepth 1 -name 'herder-dev-*')" ]; then
    echo "demo: the agent left files behind: $(find "$dir" -name 'herder-dev-*')" >&2
    exit 1
fi

printf '\ndemo: done\n'
