package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/discovery"
)

const deadline = 30 * time.Second

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	testkit.Eventually(t, deadline, what, check)
}

func register(t *testing.T, c *testkit.Consul, id, address string, port int, ready func(context.Context) error) *discovery.Registrar {
	t.Helper()
	r, err := discovery.NewRegistrar(
		discovery.Service{Name: discovery.OriginService, Tags: []string{id}, Address: address, Port: port},
		discovery.RegistrarOptions{Addr: c.HTTPAddr, Interval: 50 * time.Millisecond, Ready: ready})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = r.Stop(ctx)
	})
	return r
}

func resolver(c *testkit.Consul) *discovery.Resolver {
	return discovery.NewResolver(discovery.ResolverOptions{Addr: c.DNSAddr, MinTTL: 100 * time.Millisecond})
}

// resolves waits until id resolves to exactly want.
func resolves(t *testing.T, r *discovery.Resolver, id string, want ...string) {
	t.Helper()
	eventually(t, "resolving "+id, func() error {
		got, err := r.Lookup(t.Context(), id)
		if err != nil {
			return err
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		return nil
	})
}

// asksAnew returns what a resolver without memory says.
func asksAnew(t *testing.T, c *testkit.Consul, id string) error {
	t.Helper()
	_, err := resolver(c).Lookup(t.Context(), id)
	return err
}

func TestRegisterResolveMoveForget(t *testing.T) {
	c := testkit.StartConsul(t, 0)
	r := resolver(c)
	if _, err := r.Lookup(t.Context(), "w1"); !errors.Is(err, discovery.ErrUnknown) {
		t.Fatalf("before registration: %v, want ErrUnknown", err)
	}
	first := register(t, c, "w1", "127.0.0.1", 4001, nil)
	register(t, c, "w2", "127.0.0.2", 4002, nil)
	resolves(t, r, "w1", "127.0.0.1:4001")
	resolves(t, r, "w2", "127.0.0.2:4002")

	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "w1 gone from dns", func() error {
		if err := asksAnew(t, c, "w1"); !errors.Is(err, discovery.ErrUnknown) {
			return fmt.Errorf("got %v, want ErrUnknown", err)
		}
		return nil
	})
	// Unknown to DNS now: the last address stays.
	resolves(t, r, "w1", "127.0.0.1:4001")

	register(t, c, "w1", "127.0.0.1", 5001, nil)
	resolves(t, r, "w1", "127.0.0.1:5001")

	c.Kill()
	for range 20 { // well past the TTL
		resolves(t, r, "w1", "127.0.0.1:5001")
		time.Sleep(10 * time.Millisecond)
	}
	c.Start() // an agent that has forgotten everything
	eventually(t, "w1 registered again", func() error { return asksAnew(t, c, "w1") })
	resolves(t, r, "w2", "127.0.0.2:4002")
}

func TestReadinessDecidesTheCheck(t *testing.T) {
	c := testkit.StartConsul(t, 0)
	var ready atomic.Bool
	register(t, c, "w1", "127.0.0.1", 4001, func(context.Context) error {
		if !ready.Load() {
			return errors.New("not yet")
		}
		return nil
	})
	known := func() error { return asksAnew(t, c, "w1") }
	unknown := func() error {
		if err := known(); !errors.Is(err, discovery.ErrUnknown) {
			return fmt.Errorf("got %v, want ErrUnknown", err)
		}
		return nil
	}
	eventually(t, "unknown while not ready", unknown)
	ready.Store(true)
	eventually(t, "known when ready", known)
	ready.Store(false)
	eventually(t, "unknown when no longer ready", unknown)
}

// TestTruncated registers so many instances of one id that UDP can't carry them.
func TestTruncated(t *testing.T) {
	c := testkit.StartConsul(t, time.Second)
	const n = 60
	var want []string
	for i := range n {
		reg, err := discovery.NewRegistrar(discovery.Service{
			Name: discovery.OriginService, ID: fmt.Sprintf("many-%d", i), Tags: []string{"many"},
			Address: fmt.Sprintf("127.0.1.%d", i+1), Port: 4000 + i,
		}, discovery.RegistrarOptions{Addr: c.HTTPAddr, TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := reg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = reg.Stop(ctx)
		})
		want = append(want, fmt.Sprintf("127.0.1.%d:%d", i+1, 4000+i))
	}
	slices.Sort(want)
	resolves(t, resolver(c), "many", want...)
}

func TestNoDNSAtAll(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions, answers none
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := discovery.NewResolver(discovery.ResolverOptions{Addr: l.LocalAddr().String(), Timeout: 50 * time.Millisecond})
	if _, err := r.Lookup(t.Context(), "w1"); err == nil || errors.Is(err, discovery.ErrUnknown) {
		t.Fatalf("got %v, want an error that is not ErrUnknown", err)
	}
}

func TestLabels(t *testing.T) {
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", "a\x00", strings.Repeat("a", 64)} {
		if discovery.CheckLabel(bad) == nil {
			t.Errorf("label %q accepted", bad)
		}
		if _, err := discovery.NewRegistrar(discovery.Service{Name: "origin", Tags: []string{bad}, Port: 1},
			discovery.RegistrarOptions{}); err == nil {
			t.Errorf("origin with tag %q accepted", bad)
		}
	}
	for _, good := range []string{"a", "w1", "a-b-9", strings.Repeat("a", 63)} {
		if err := discovery.CheckLabel(good); err != nil {
			t.Error(err)
		}
	}
}
