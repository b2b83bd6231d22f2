#!/usr/bin/env bash
# The kernels for matrix units, under a CPU driver that imitates such units. Without that driver nothing is tested, which
# the last line but one says; the last line is `N passed, N failed`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=../shared/tools/mesa26
skip() {
  echo "skipped: $1"
  echo '0 passed, 0 failed'
  exit 0
}
[ -x "$tool" ] || skip "$tool, which runs a driver with matrix units, is absent"
"$tool" true || skip "$tool could not prepare its driver"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$tool" node build/test/run.js matrix --limit 400 2>&1 | tee "$log"
status=$?
if [ "$status" -eq 0 ] && ! tail -n 1 "$log" | grep -qE '^[1-9][0-9]* passed, 0 failed$'; then
  echo 'under this driver every test of matrix units must run'
  echo '0 passed, 1 failed'
  exit 1
fi
exit "$status"
