package testkit

import (
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRedisKillRestart(t *testing.T) {
	r := NewRedis(t)
	if err := r.ping(); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	if err := r.ping(); err == nil {
		t.Fatal("a killed server answers")
	}
	r.Restart()
	if err := r.ping(); err != nil {
		t.Fatal(err)
	}
}

func TestProcessIsKilledWithItsChildren(t *testing.T) {
	p := StartProcess(t, "sh", exec.Command("sh", "-c", "sleep 100 & echo child $!; wait"))
	Eventually(t, 30*time.Second, "the child's id", func() error {
		if strings.Count(p.Output(), "\n") == 0 {
			return syscall.EAGAIN
		}
		return nil
	})
	p.Kill()
	Eventually(t, 30*time.Second, "the group to be gone", func() error {
		if err := syscall.Kill(-p.PID(), 0); err != syscall.ESRCH {
			return syscall.EAGAIN
		}
		return nil
	})
}

func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for _, p := range FreePorts(t, 20) {
		if seen[p] {
			t.Fatalf("port %d twice", p)
		}
		seen[p] = true
	}
}

// A port that nobody listens on stays its claim's, and is not one that the kernel
// gives to others.
func TestClaimedPortsAreNobodyElses(t *testing.T) {
	c, err := ClaimPorts(10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	other := &Claim{First: c.First + 9}
	if other.take(1) {
		t.Error("a port is claimed twice")
	}
	other.Release()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if p := l.Addr().(*net.TCPAddr).Port; p < min(ephemeral(), highestPort) {
			t.Errorf("the kernel gives out port %d", p)
		}
		_ = l.Close()
	}
	taken, err := net.Listen("tcp", loopback(c.First))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	c.Release()
	if c.take(1) {
		t.Error("a port on which something listens is claimed")
	}
}
