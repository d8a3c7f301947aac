package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/services/discovery"
)

// TestFleet shows that what dns measures is there: every stream is placed on the
// origin that its request expects, and DNS knows that origin's address.
func TestFleet(t *testing.T) {
	h := harness.NewT(t.Name())
	defer h.Close()
	const streams = 200
	f, err := newFleet(h, streams)
	if err != nil {
		t.Fatal(err)
	}
	for _, origins := range []int{3, 40} { // the second moves the streams
		if err := f.grow(h, origins); err != nil {
			t.Fatal(err)
		}
		resolver := discovery.NewResolver(discovery.ResolverOptions{Addr: f.consul.DNSAddr})
		for n := range streams {
			route, err := f.store.Route(t.Context(), streamID(n))
			if err != nil || route.Origin != originID(n%origins) || !route.Live {
				t.Fatalf("%d origins, stream %d: %+v, %v", origins, n, route, err)
			}
			want := fmt.Sprintf("%s:%d", originAddr(n%origins), originPort)
			if addrs, err := resolver.Lookup(t.Context(), route.Origin); err != nil || !slices.Equal(addrs, []string{want}) || f.request(n).host != want {
				t.Fatalf("%d origins, %s: %v, %v; want %s", origins, route.Origin, addrs, err, want)
			}
		}
	}
}
