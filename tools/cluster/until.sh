#!/usr/bin/env bash
# until.sh PID SCRIPT STATE: takes the cluster in STATE down when the process PID has ended.
set -u
while [ -d "/proc/$1" ]; do sleep 0.5; done
cd /
DIONYSIA_CLUSTER_DIR=$3 exec setsid "$2" down
