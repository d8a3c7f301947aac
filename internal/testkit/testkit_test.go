package testkit

import (
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
	Eventually(t, 10*time.Second, "the child's id", func() error {
		if strings.Count(p.Output(), "\n") == 0 {
			return syscall.EAGAIN
		}
		return nil
	})
	p.Kill()
	Eventually(t, 10*time.Second, "the group to be gone", func() error {
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
