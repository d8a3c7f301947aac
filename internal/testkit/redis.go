package testkit

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Redis is a real redis-server on the loopback, with a password, noeviction
// and an append-only file that is fsynced at each write.
type Redis struct {
	Addr     string // host:port
	Password string

	t    testing.TB
	conf string
	proc *Process
}

// StartRedis starts a redis-server that lives until the test ends.
func StartRedis(t testing.TB) (addr, password string) {
	t.Helper()
	r := NewRedis(t)
	return r.Addr, r.Password
}

// NewRedis is StartRedis for tests that kill and restart the server.
func NewRedis(t testing.TB) *Redis {
	t.Helper()
	r := &Redis{t: t, Password: rand.Text()}
	dir := t.TempDir()
	r.conf = filepath.Join(dir, "redis.conf")
	port := FreePort(t)
	r.Addr = loopback(port)
	conf := fmt.Sprintf("bind 127.0.0.1\nport %d\nrequirepass %s\ndir %s\nappendonly yes\nappendfsync always\nsave \"\"\nmaxmemory-policy noeviction\ndaemonize no\n",
		port, r.Password, dir)
	if err := os.WriteFile(r.conf, []byte(conf), 0o600); err != nil {
		t.Fatalf("writing the configuration of Redis: %v", err)
	}
	if err := r.start(); err != nil {
		t.Fatalf("starting redis-server: %v", err)
	}
	return r
}

// URL returns the redis:// URL of a database (0 to 15), with the password.
func (r *Redis) URL(db int) string {
	return fmt.Sprintf("redis://:%s@%s/%d", r.Password, r.Addr, db)
}

// Kill kills the server with SIGKILL and waits until it is gone.
func (r *Redis) Kill() { r.proc.Kill() }

// PID returns the server's process id, for a test that freezes it.
func (r *Redis) PID() int { return r.proc.PID() }

// Restart starts the server again on the same port and files, after Kill.
func (r *Redis) Restart() {
	r.t.Helper()
	if err := r.start(); err != nil {
		r.t.Fatalf("restarting redis-server: %v", err)
	}
}

func (r *Redis) start() error {
	r.t.Helper()
	r.proc = StartProcess(r.t, "redis-server", exec.Command(Part(r.t, "DIONYSIA_REDIS_SERVER", "redis-server"), r.conf))
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	return WaitFor(ctx, 30*time.Second, func() error {
		select {
		case <-r.proc.Done():
			cancel()
			return fmt.Errorf("it ended: %v\n%s", r.proc.Err(), r.proc.Output())
		default:
			return r.ping()
		}
	})
}

// ping speaks the protocol itself: testkit depends on no client.
func (r *Redis) ping() error {
	c, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprintf(c, "AUTH %s\r\nPING\r\n", r.Password); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for _, want := range []string{"+OK\r\n", "+PONG\r\n"} {
		got, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("redis answered %q", got)
		}
	}
	return nil
}
