// Package testkit starts the real parts that tests need (one file per part),
// gives each its ports and waits for conditions. Every process it starts is killed
// when its test ends, also when the test binary itself is killed, and its
// output is printed when the test fails. A part that is missing fails the test.
package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Part returns the path of an external program: the environment variable env
// when it is set, else name looked up on PATH. A missing part fails the test.
func Part(t testing.TB, env, name string) string {
	t.Helper()
	p := os.Getenv(env)
	if p == "" {
		p = name
	}
	path, err := exec.LookPath(p)
	if err != nil {
		t.Fatalf("%s is needed: set %s or put it on PATH: %v", name, env, err)
	}
	return path
}

// Eventually calls check every 20 ms until it returns nil, and fails the test
// with check's last error when timeout has passed.
func Eventually(t testing.TB, timeout time.Duration, what string, check func() error) {
	t.Helper()
	if err := WaitFor(t.Context(), timeout, check); err != nil {
		t.Fatalf("waiting %v for %s: %v", timeout, what, err)
	}
}

// WaitFor is Eventually for callers that handle the error themselves. It ends
// early, with the context's error, when ctx is done.
func WaitFor(ctx context.Context, timeout time.Duration, check func() error) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		}
	}
}

// Dialable returns a check for Eventually: something accepts TCP on addr.
func Dialable(addr string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// Listening returns a check for Eventually: something listens on a TCP port of
// 127.0.0.1. It asks the kernel and connects to nothing, for a server that takes
// one connection only.
func Listening(port int) func() error {
	local := fmt.Sprintf("0100007F:%04X", port) // proc(5): the address in host byte order, little-endian
	return func() error {
		b, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 3 && f[1] == local && f[3] == "0A" { // TCP_LISTEN
				return nil
			}
		}
		return fmt.Errorf("nothing listens on port %d", port)
	}
}
