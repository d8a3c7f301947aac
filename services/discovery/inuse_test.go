package discovery_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/miekg/dns"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/discovery"
)

// relay passes questions on to Consul's DNS, unless it is held, and counts them.
type relay struct {
	addr string

	mu    sync.Mutex
	held  bool
	asked map[string]int
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.LocalAddr().String(), asked: map[string]int{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			buf := make([]byte, 4096)
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) != nil || !r.pass(q.Question[0].Name) {
				continue
			}
			wg.Go(func() {
				a, _, err := new(dns.Client).Exchange(q, to)
				if err != nil {
					return
				}
				if b, err := a.Pack(); err == nil {
					_, _ = l.WriteTo(b, from)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return r
}

func (r *relay) pass(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[name]++
	return !r.held
}

func (r *relay) hold(held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
}

// take returns how often each name was asked for since the last time.
func (r *relay) take() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = map[string]int{}
	return asked
}

// noWait is a context with which a Lookup that waits for DNS fails.
func noWait(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestNobodyWaitsForAnAddressInUse(t *testing.T) {
	c := testkit.StartConsul(t, 0)
	dns := startRelay(t, c.DNSAddr)
	r := discovery.NewResolver(discovery.ResolverOptions{Addr: dns.addr, MinTTL: 20 * time.Millisecond})
	first := register(t, c, "w1", "127.0.0.1", 4001, nil)
	resolves(t, r, "w1", "127.0.0.1:4001")

	dns.hold(true)
	dns.take()
	eventually(t, "a question after the TTL", func() error {
		addrs, err := r.Lookup(noWait(t), "w1")
		if err != nil || len(addrs) != 1 {
			t.Fatalf("while DNS does not answer: %v, %v", addrs, err)
		}
		if len(dns.take()) == 0 {
			return fmt.Errorf("none was put")
		}
		return nil
	})

	// One that does not answer is not given out again before DNS was asked.
	r.Failed("w1")
	eventually(t, "a lookup that waits", func() error {
		if addrs, err := r.Lookup(noWait(t), "w1"); err == nil {
			return fmt.Errorf("got %v at once", addrs)
		}
		return nil
	})
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	register(t, c, "w1", "127.0.0.1", 5001, nil)
	eventually(t, "the new address being in DNS", func() error { return asksAnew(t, c, "w1") })
	dns.hold(false)
	resolves(t, r, "w1", "127.0.0.1:5001")
}

// TestQuestionsTakeTurns uses more origins than can be asked for within the TTL.
func TestQuestionsTakeTurns(t *testing.T) {
	const origins = 300
	c := testkit.StartConsul(t, 0)
	client, err := consul.NewClient(&consul.Config{Address: c.HTTPAddr})
	if err != nil {
		t.Fatal(err)
	}
	all := &consul.AgentServiceRegistration{Name: discovery.OriginService, Address: "127.0.0.1", Port: 4001}
	for i := range origins {
		all.Tags = append(all.Tags, fmt.Sprintf("w%d", i))
	}
	if err := client.Agent().ServiceRegister(all); err != nil {
		t.Fatal(err)
	}
	dns := startRelay(t, c.DNSAddr)
	r := discovery.NewResolver(discovery.ResolverOptions{Addr: dns.addr, MinTTL: 20 * time.Millisecond})
	for _, id := range all.Tags {
		resolves(t, r, id, "127.0.0.1:4001")
	}
	dns.take()
	asked := map[string]int{}
	begin := time.Now()
	eventually(t, "every origin being asked for twice", func() error {
		for _, id := range all.Tags {
			if _, err := r.Lookup(noWait(t), id); err != nil {
				t.Fatal(err)
			}
		}
		for name, n := range dns.take() {
			asked[name] += n
		}
		twice := 0
		for _, n := range asked {
			if n >= 2 {
				twice++
			}
		}
		if twice < origins {
			return fmt.Errorf("%d of %d", twice, origins)
		}
		return nil
	})
	took, sum := time.Since(begin), 0
	for name, n := range asked {
		if sum += n; n > 4 {
			t.Errorf("%s was asked for %d times while others were twice", name, n)
		}
	}
	// 5 ms lie between two at least.
	if limit := int(took/(5*time.Millisecond)) + 1; sum > limit {
		t.Errorf("%d questions in %v, more than %d", sum, took, limit)
	}
	t.Logf("%d questions in %v", sum, took)
}
