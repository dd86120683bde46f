#!/usr/bin/env bash
# Runs inside the virtual machine of scripts/cgroup2.sh, as root and with nothing else around: an agent with `exec` and
# `raw_exec` tasks whose control groups are looked at in the kernel's own files, then the tests given in $TESTS.
# The last line says `cgroup2: passed` when all of it held.
set -uo pipefail

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin NO_COLOR=1
export NOMAD_ADDR=http://127.0.0.1:4646
groups=/sys/fs/cgroup
slice=$groups/nomad.slice
work=/tmp/cgroup2
failed=0

prepare() {
    hostname cgroup2
    mkdir -p /dev/pts /dev/shm "$work" /lib/modules
    mount -t devpts devpts /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t cgroup2 cgroup2 "$groups"
    mount --bind "$MODULES" /lib/modules
    printf '#!/bin/sh\nexec busybox modprobe "$@"\n' >/sbin/modprobe
    chmod +x /sbin/modprobe
    ip link set lo up
    ip link set eth0 up
    ip address add 10.0.2.15/24 dev eth0
    ip route add default via 10.0.2.2
    cd "$work" || exit 1
}

# check WHAT COMMAND...: says whether the command succeeds; keeps the last output of one that does not.
check() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok      $what"
    else
        echo "FAILED  $what: $* $said"
        failed=1
    fi
}

# eventually SECONDS COMMAND...
eventually() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || { "$@"; return; }
        sleep 0.2
    done
}

# is FILE VALUE
is() {
    local found
    found=$(cat "$1") || return 1
    [ "$found" = "$2" ] || { echo "is $found, not $2"; return 1; }
}

# between VALUE LOW HIGH, for whole numbers
between() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ]; }
gone() { [ ! -e "$1" ] || { echo "$1 is there"; return 1; }; }
no_process() { ! pgrep -af "$1"; }

start_etcd() {
    etcd --data-dir "$work/etcd" --listen-client-urls http://127.0.0.1:2379 --log-level error \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 >"$work/etcd.log" 2>&1 &
    etcd=$!
    eventually 60 etcdctl --endpoints http://127.0.0.1:2379 endpoint health || { cat "$work/etcd.log"; return 1; }
}

start_agent() {
    "$HERDER" agent -dev -config "$work/agent.hcl" >>"$work/agent.log" 2>&1 &
    agent=$!
    eventually 60 ready || { tail "$work/agent.log"; return 1; }
}
ready() { "$HERDER" node status -json | jq -e '.[0].Status == "ready"'; }

# job NAME DRIVER RESOURCES SCRIPT [TYPE]: runs a shell script as a task
job() {
    cat >"$work/$1.hcl" <<END
job "$1" {
  type = "${5:-service}"
  group "g" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver       = "$2"
      kill_timeout = "2s"
      config {
        command = "/bin/sh"
        args    = ["-c", <<EOT
$4
EOT
        ]
      }
      resources {
        $3
      }
    }
  }
}
END
    "$HERDER" job run -detach "$work/$1.hcl" >/dev/null || return 1
    eventually 60 has_alloc "$1"
}
alloc() { "$HERDER" operator api "/v1/job/$1/allocations" | jq -r '.[0].ID // empty'; }
has_alloc() { [ -n "$(alloc "$1")" ]; }
status() { "$HERDER" operator api "/v1/job/$1/allocations" | jq -r '.[0].ClientStatus'; }
has_status() { [ "$(status "$1")" = "$2" ] || { echo "is $(status "$1")"; "$HERDER" alloc status "$(alloc "$1")" | tail -n 12; return 1; }; }
says() { "$HERDER" alloc logs "$(alloc "$1")" | grep -q "$2" || { "$HERDER" alloc logs "$(alloc "$1")"; return 1; }; }
scope() { echo "$slice/${2:-share.slice}/$(alloc "$1").t.scope"; }
# The supervisor is outside, so the first is the task's own.
first_pid() { head -n 1 "$(scope "$1" "${2:-share.slice}")/cgroup.procs"; }

limits() {
    local driver dir
    for driver in exec raw_exec; do
        job "$driver-limits" "$driver" 'cpu = 500
        memory     = 48
        memory_max = 96' 'cat /proc/self/cgroup; exec sleep 100000'
        check "$driver: the task runs" eventually 60 has_status "$driver-limits" running
        dir=$(scope "$driver-limits")
        check "$driver: memory.max is memory_max" is "$dir/memory.max" $((96 << 20))
        check "$driver: memory.low is memory" is "$dir/memory.low" $((48 << 20))
        check "$driver: nothing is swapped out" is "$dir/memory.swap.max" 0
        check "$driver: the weight follows the CPU" is "$dir/cpu.weight" 19
        check "$driver: the task sees its group" eventually 30 says "$driver-limits" "^0::/nomad.slice/share.slice/.*\.t\.scope"
    done
    check "exec: processes are limited" grep -qx '[0-9]*' "$(scope exec-limits)/pids.max"
    check "raw_exec: processes are not limited unless asked" is "$(scope raw_exec-limits)/pids.max" max
}

out_of_memory() {
    local driver
    for driver in exec raw_exec; do
        job "$driver-eater" "$driver" 'memory = 24' 'exec tail /dev/zero'
        check "$driver: a task over its memory fails" eventually 60 has_status "$driver-eater" failed
        "$HERDER" alloc status "$(alloc "$driver-eater")" >"$work/eater"
        check "$driver: and says so" grep -F 'Exit Code: 137, Signal: 9, Exit Message: "OOM Killed"' "$work/eater"
        check "$driver: its group is gone" eventually 20 gone "$(scope "$driver-eater")"
    done
}

cores() {
    job reserved exec 'cores = 1
        memory = 16' 'grep Cpus_allowed_list /proc/self/status; echo "cores $NOMAD_CPU_CORES"; exec sleep 100000'
    check "cores: the task runs" eventually 60 has_status reserved running
    local dir core
    dir=$(scope reserved reserve.slice)
    core=$(cat "$dir/cpuset.cpus")
    check "cores: the task has one" eventually 30 says reserved "Cpus_allowed_list:[^0-9]$core\$"
    check "cores: it is told which" says reserved "cores $core\$"
    check "cores: all others have the other" is "$slice/share.slice/cpuset.cpus.effective" $((1 - core))
    "$HERDER" job stop -purge -detach reserved >/dev/null
    check "cores: the group goes with the task" eventually 30 gone "$dir"
    check "cores: and all processors are shared again" eventually 20 is "$slice/share.slice/cpuset.cpus.effective" 0-1
}

statistics() {
    job busy exec 'cpu = 100
        memory = 128' 'x=$(head -c 40000000 /dev/zero | tr "\0" x); echo filled; while :; do :; done'
    check "statistics: the task runs" eventually 60 says busy filled
    local id usage
    id=$(alloc busy)
    "$HERDER" alloc status -stats "$id" >"$work/stats"
    check "statistics: alloc status -stats shows memory" grep -E '[0-9.]+ [MG]iB/128 MiB' "$work/stats"
    usage=$("$HERDER" operator api "/v1/client/allocation/$id/stats")
    check "statistics: at least the 38 MiB held" between "$(jq '.ResourceUsage.MemoryStats.RSS' <<<"$usage")" 38000000 134217728
    check "statistics: a busy loop is busy" between "$(jq '.ResourceUsage.CpuStats.Percent | floor' <<<"$usage")" 20 220
    cat "$work/stats"
}

# Processes that leave the session and ignore signals still belong to the group.
stubborn() {
    job stubborn raw_exec 'memory = 32' 'trap "" INT TERM; for i in 1 2 3; do setsid sh -c "trap \"\" INT TERM HUP; while :; do sleep 31337; done" & done; while :; do sleep 31337; done'
    check "end: the task runs" eventually 60 has_status stubborn running
    local dir
    dir=$(scope stubborn)
    # A task of root may make groups of its own in its group.
    mkdir "$dir/own"
    pgrep -f 'sleep 31337' | head -n 1 >"$dir/own/cgroup.procs"
    "$HERDER" job stop -purge -detach stubborn >/dev/null
    check "end: every process is killed" eventually 30 no_process 'sleep 31337'
    check "end: the group is removed, with the groups in it" eventually 30 gone "$dir"
}

# A killed agent with its state in etcd takes its tasks up again.
killed_agent() {
    local driver
    declare -A before
    for driver in exec raw_exec; do before[$driver]=$(first_pid "$driver-limits"); done
    kill -9 "$agent"
    wait "$agent" 2>/dev/null
    for driver in exec raw_exec; do
        check "kill -9: $driver goes on" kill -0 "${before[$driver]}"
    done
    start_agent
    for driver in exec raw_exec; do
        check "kill -9: $driver is found again" eventually 60 has_status "$driver-limits" running
        check "kill -9: $driver is the same process" [ "$(first_pid "$driver-limits")" = "${before[$driver]}" ]
        check "kill -9: $driver was not restarted" [ "$(restarts "$driver-limits")" = 0 ]
    done
    job after-kill exec 'memory = 24' 'exec tail /dev/zero'
    check "kill -9: limits of new tasks hold" eventually 60 has_status after-kill failed
}
restarts() { "$HERDER" operator api "/v1/job/$1/allocations" | jq -r '.[0].TaskStates.t.Restarts'; }

# What a reboot leaves: data and etcd, but no process, no group and no memory file system; and another boot id.
reboot() {
    local driver
    declare -A before
    for driver in exec raw_exec; do before[$driver]=$(alloc "$driver-limits"); done
    kill -9 "$agent"
    pkill -9 -x herder-task
    wait "$agent" 2>/dev/null
    pkill -9 -f "sleep 100000"
    eventually 20 no_process "sleep 100000"
    pkill -9 -f "while :; do :; done"
    find "$slice" -depth -name '*.scope' -exec rmdir {} +
    grep -o "$work/data[^ ]*" /proc/mounts | sort -r | xargs -r umount
    cat /proc/sys/kernel/random/uuid >"$work/boot_id"
    mount --bind "$work/boot_id" /proc/sys/kernel/random/boot_id
    start_agent
    for driver in exec raw_exec; do
        check "reboot: $driver runs again" eventually 60 test -e "$slice/share.slice/${before[$driver]}.t.2.scope"
        check "reboot: $driver is the same allocation" [ "$(alloc "$driver-limits")" = "${before[$driver]}" ]
        check "reboot: $driver runs" eventually 30 has_status "$driver-limits" running
        check "reboot: that is no restart" [ "$(restarts "$driver-limits")" = 0 ]
    done
}

nothing_left() {
    local name
    for name in $("$HERDER" job status | awk 'NR > 1 { print $1 }'); do
        "$HERDER" job stop -purge -detach "$name" >/dev/null
    done
    groups_are_gone() { ! find "$slice" -name '*.scope' | grep .; }
    check "nothing left: groups" eventually 60 groups_are_gone
    check "nothing left: tasks" eventually 20 no_process 'sleep (100000|31337)'
    kill -INT "$agent"
    wait "$agent"
    check "nothing left: supervisors" eventually 20 no_supervisor
    check "nothing left: mounts" eventually 20 no_mounts
}
no_supervisor() { ! pgrep -ax herder-task; }
no_mounts() { ! grep "$work" /proc/mounts; }

tests() {
    local file filter
    for file in $TESTS; do
        case $(basename "$file") in
        drivers-*) filters="isolated raw_exec" ;;
        e2e-*) filters="isolated" ;;
        *) filters=cgroup ;;
        esac
        for filter in $filters; do
            (cd "$REPO" && timeout 1500 "$file" --test-threads 2 "$filter" 2>&1) | tee "$work/test"
            check "tests: $(basename "$file") $filter" grep -q '^test result: ok' "$work/test"
        done
    done
}

prepare
check "only version 2 is mounted" [ "$(stat -f -c %T $groups)" = cgroup2fs ]
cat >"$work/agent.hcl" <<END
name     = "cgroup2"
data_dir = "$work/data"
plugin "raw_exec" {
  config {
    enabled = true
  }
}
etcd {
  endpoints = ["http://127.0.0.1:2379"]
}
server {
  # An emulated machine takes its time to start an agent.
  heartbeat_grace = "2m"
  default_scheduler_config {
    memory_oversubscription_enabled = true
  }
}
END
if start_etcd && start_agent; then
    attributes=$("$HERDER" node status -json -self)
    check "the node says version 2" [ "$(jq -r '.Attributes["os.cgroups.version"]' <<<"$attributes")" = 2 ]
    check "and where it is" [ "$(jq -r '.Attributes["unique.cgroup.mountpoint"]' <<<"$attributes")" = $groups ]
    limits
    out_of_memory
    cores
    statistics
    stubborn
    killed_agent
    reboot
    nothing_left
else
    failed=1
fi
kill "$etcd"
tests
[ $failed = 0 ] && echo "cgroup2: passed" || { tail -n 20 "$work/agent.log"; echo "cgroup2: something failed"; }
