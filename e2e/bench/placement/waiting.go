package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
)

// waiting tells how long this goroutine's thread has waited for a CPU while it
// could have run: on a machine that others use too, that is not the decision's
// time. What Redis waits is not in it.
type waiting struct{ file *os.File }

// newWaiting locks the goroutine to its thread. Linux' schedstat has the figure.
func newWaiting() (*waiting, error) {
	runtime.LockOSThread()
	f, err := os.Open("/proc/thread-self/schedstat")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("how long a thread waits for a CPU is not known: %w", err)
	}
	return &waiting{f}, nil
}

// ms returns it since the thread's start, in ms.
func (w *waiting) ms() (float64, error) {
	var buf [96]byte
	n, err := w.file.ReadAt(buf[:], 0)
	fields := bytes.Fields(buf[:n]) // ns on a CPU, ns of waiting for one, turns
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat says %q: %w", buf[:n], err)
	}
	ns, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedstat says %q: %w", buf[:n], err)
	}
	return float64(ns) / 1e6, nil
}

func (w *waiting) close() {
	_ = w.file.Close()
	runtime.UnlockOSThread()
}
