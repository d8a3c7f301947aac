package main

import (
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// ticksPerSecond is the kernel's USER_HZ, which is 100 on every Linux that Go
// runs on.
const ticksPerSecond = 100

// cpuOf returns the CPU seconds that these processes have used, themselves and
// all their threads, and not their children.
func cpuOf(pids ...int) (float64, error) {
	var ticks uint64
	for _, pid := range pids {
		p, ok := kit.ReadProcess(pid)
		if !ok {
			return 0, fmt.Errorf("process %d is gone", pid)
		}
		ticks += p.CPU
	}
	return float64(ticks) / ticksPerSecond, nil
}

// cpuOver returns the CPU seconds per second that the processes use over d.
func cpuOver(d time.Duration, pids ...int) (float64, error) {
	begin := time.Now()
	before, err := cpuOf(pids...)
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	after, err := cpuOf(pids...)
	return (after - before) / time.Since(begin).Seconds(), err
}

func pidsOf(ps []kit.Process) []int {
	var pids []int
	for _, p := range ps {
		pids = append(pids, p.Pid)
	}
	return pids
}
