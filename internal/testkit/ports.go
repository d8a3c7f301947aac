package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
)

// Ports are taken from this range, or from what of it is below the kernel's
// ephemeral ports. A port that was bound as ":0" and freed again is one that any
// process's next connection may get, also while a server that had it restarts. From
// 20000 on Nomad gives out its allocations' ports.
const (
	lowestPort  = 10_000
	highestPort = 20_000
)

// errNoPort says that not so many successive ports are free.
var errNoPort = errors.New("no free ports")

// Claim is n successive ports, on which nothing listened by TCP or UDP. No other
// Claim, of any process, has them until Release or the end of this process.
type Claim struct {
	First int
	held  []int // file descriptors
}

// ClaimPorts finds n successive ports.
func ClaimPorts(n int) (*Claim, error) {
	top := highestPort
	if low := ephemeral(); low >= 2*lowestPort {
		top = min(top, low)
	}
	places := (top - lowestPort) / n
	for i, start := 0, rand.IntN(places); i < places; i++ {
		c := &Claim{First: lowestPort + (start+i)%places*n}
		if c.take(n) {
			return c, nil
		}
		c.Release()
	}
	return nil, fmt.Errorf("%w: %d in a row from %d to %d", errNoPort, n, lowestPort, top)
}

// take claims the ports one by one. A claim is a name among the abstract sockets:
// they belong to a network namespace, as ports do, and go with their process.
func (c *Claim) take(n int) bool {
	for port := c.First; port < c.First+n; port++ {
		name, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return false
		}
		c.held = append(c.held, name)
		if err := syscall.Bind(name, &syscall.SockaddrUnix{Name: fmt.Sprintf("@dionysia-test-port-%d", port)}); err != nil || !portFree(port) {
			return false
		}
	}
	return true
}

// Release gives the ports back. Calling it again is harmless.
func (c *Claim) Release() {
	for _, name := range c.held {
		_ = syscall.Close(name)
	}
	c.held = nil
}

// portFree says that nothing listens on a port, at whatever address.
func portFree(port int) bool {
	addr := fmt.Sprintf(":%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	_ = l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	_ = u.Close()
	return true
}

// ephemeral returns the first of the ports that the kernel chooses itself, 0 when
// it does not say.
func ephemeral() (low int) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(b), &low)
	return low
}

// FreePort returns a port that is this test's alone until its end, for TCP and UDP.
func FreePort(t testing.TB) int {
	t.Helper()
	return FreePorts(t, 1)[0]
}

// FreePorts returns n different ports, as FreePort does.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, 0, n)
	for range n {
		c, err := ClaimPorts(1)
		if err != nil {
			t.Fatalf("finding a free port: %v", err)
		}
		t.Cleanup(c.Release) // after the end of what listens there, which starts later
		ports = append(ports, c.First)
	}
	return ports
}
