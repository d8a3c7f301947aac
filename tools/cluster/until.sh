#!/usr/bin/env bash
# until.sh PID SCRIPT STATE: takes the cluster in STATE down when the process PID has ended.
set -u
cd /
while [ -d "/proc/$1" ]; do sleep 0.5; done
rm -f "$3/pid/watch" # this process: what comes next shall not stop itself
DIONYSIA_CLUSTER_DIR=$3 exec "$2" down
