#!/usr/bin/env bash
# Runs all tests: with Docker, etcd and Java for real. Tests start their own etcd servers.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "test: the task drivers need root (namespaces, control groups); run: sudo -E make test" >&2
    exit 1
fi

mkdir -p .dev
if [ "$(scripts/docker.sh start)" = started ]; then
    trap 'scripts/docker.sh stop' EXIT
fi

log=.dev/test.log
status=0
"${CARGO:-cargo}" test --no-fail-fast 2>&1 | tee "$log" || status=$?

echo
echo "summary (full output in $log):"
awk '/^ +Running |^ +Doc-tests /{ name = $2 == "unittests" ? $2 " " $3 : $2 } /^test result:/{ print "  " name ": " $0 }' "$log"
grep -E '^test .* (FAILED|ignored)' "$log" || true
awk '/^test result:/{ passed += $4; failed += $6; ignored += $8 }
     END { printf "test result: %d passed; %d failed; %d ignored\n", passed, failed, ignored }' "$log"
exit "$status"
