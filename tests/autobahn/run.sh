#!/usr/bin/env bash
# WebSocket conformance: runs the Autobahn fuzzing client against an echo that is built on the
# server's own connection code (echo.rs), and judges the report.
#
#   tests/autobahn/run.sh            all cases but compression (12.*, 13.*), which is not offered
#   tests/autobahn/run.sh '7.*'      only these cases
#
# Exit code 0: no case failed, or the suite cannot be installed here, which is said loudly.
# The suite needs CPython 2.7; it goes into ${XDG_CACHE_HOME:-~/.cache}/txtcord-autobahn, with the
# report of the last run. ECHO=PATH tests another echo than the one that cargo builds.
set -euo pipefail

cases=${1:-*}
repo=$(cd "$(dirname "$0")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/txtcord-autobahn
suite=autobahntestsuite==25.10.1
# The last one that makes environments for 2.7.
virtualenv=virtualenv==20.15.1
# What the suite takes at the most, many times over, in seconds.
patience=1800

skip() {
    echo "SKIPPED: WebSocket conformance was not tested: $*"
    exit 0
}

# Prints the first of the names and paths given that runs as Python $1; shims that do not are common.
find_python() {
    local version=$1 python
    shift
    for python in "$@"; do
        if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
            2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

install_suite() {
    local versions=/nonexistent old new="" version
    if command -v pyenv >/dev/null; then
        versions=$(pyenv root)/versions
    fi
    old=$(find_python 2.7 python2.7 python2 "$versions"/2.7*/bin/python) ||
        skip "there is no CPython 2.7 on PATH or under pyenv"
    for version in 3.11 3.10 3.9 3.8; do
        new=$(find_python $version python$version python3 "$versions"/$version*/bin/python) && break
    done
    [ -n "$new" ] || skip "there is no Python 3.8 to 3.11, which $virtualenv needs"
    rm -rf "$cache/tools" "$cache/suite"
    mkdir -p "$cache"
    echo "installing $suite for $old into $cache"
    {
        "$new" -m venv "$cache/tools" &&
            "$cache/tools/bin/python" -m pip install --quiet "$virtualenv" &&
            "$cache/tools/bin/python" -m virtualenv --quiet --python "$old" "$cache/suite" &&
            "$cache/suite/bin/python" -m pip install --quiet "$suite"
    } >"$cache/install.log" 2>&1 || {
        tail -n 5 "$cache/install.log"
        rm -rf "$cache/suite"
        skip "$suite could not be installed; $cache/install.log says why"
    }
    touch "$cache/suite/complete"
}

[ -e "$cache/suite/complete" ] || install_suite

if [ -z "${ECHO:-}" ]; then
    cd "$repo"
    # Where cargo put it is cargo's to say.
    ECHO=$(cargo build --release --example echo --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\/examples\/echo\)".*/\1/p')
fi

work=$(mktemp -d)
echo_pid=""
tidy_up() {
    if [ -n "$echo_pid" ]; then
        kill "$echo_pid" 2>/dev/null || true
        wait "$echo_pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap tidy_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkfifo "$work/address"
"$ECHO" >"$work/address" &
echo_pid=$!
read -r address <"$work/address" || { echo "the echo did not start"; exit 1; }

rm -rf "$cache/report"
cat >"$work/fuzzingclient.json" <<SPEC
{
    "outdir": "$cache/report",
    "servers": [{"agent": "txtcord", "url": "ws://$address/ws"}],
    "cases": ["$cases"],
    "exclude-cases": ["12.*", "13.*"],
    "exclude-agent-cases": {}
}
SPEC
echo "running cases $cases against $address"
# It ends with 0 whatever it found; what counts is the report.
timeout "$patience" "$cache/suite/bin/wstest" -m fuzzingclient -s "$work/fuzzingclient.json" \
    >"$work/wstest.log" 2>&1 || { tail -n 20 "$work/wstest.log"; echo "wstest failed"; exit 1; }
kill -0 "$echo_pid" 2>/dev/null || { echo "the echo is gone"; exit 1; }

"$cache/suite/bin/python" - "$cache/report/index.json" "$cases" <<'JUDGE'
# Runs in the suite's own Python 2.7; says the same in Python 3.
from __future__ import print_function
import json, sys
from collections import Counter

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")
ALL, MOST_NON_STRICT = 301, 2
# The suite does not mind a connection that just ends; we do. Case 7.3.1 gives none to echo.
MOST_WITHOUT_CODE = 1

with open(sys.argv[1]) as index:
    results = json.load(index)["txtcord"]

def key(case):
    return [int(part) for part in case.split(".")]

for field in ("behavior", "behaviorClose"):
    counts = Counter(result[field] for result in results.values())
    print("%s: %s" % (field, ", ".join("%d %s" % (n, what) for what, n in counts.most_common())))
failed = []
for case in sorted(results, key=key):
    how = results[case]["behavior"], results[case]["behaviorClose"]
    if how != ("OK", "OK"):
        print("  case %s: %s, close %s" % (case, how[0], how[1]))
    if any(part not in PASSED for part in how):
        failed.append(case)
non_strict = sum(result["behavior"] == "NON-STRICT" for result in results.values())
without_code = [case for case in sorted(results, key=key) if not results[case]["remoteCloseCode"]]
print("ended without a close code: %s" % (" ".join(without_code) or "none"))
complaints = []
if failed:
    complaints.append("%d failed: %s" % (len(failed), " ".join(failed)))
if non_strict > MOST_NON_STRICT:
    complaints.append("%d non-strict, expected at most %d" % (non_strict, MOST_NON_STRICT))
if len(without_code) > MOST_WITHOUT_CODE:
    complaints.append("%d ended without a close code" % len(without_code))
if sys.argv[2] == "*" and len(results) != ALL:
    complaints.append("expected %d cases" % ALL)
elif not results:
    complaints.append("no such case")
print("%d cases, %s" % (len(results), "; ".join(complaints) or "0 failed"))
sys.exit(bool(complaints))
JUDGE
