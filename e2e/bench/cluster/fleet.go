package main

import (
	"context"
	"fmt"
	"iter"
	"time"

	consul "github.com/hashicorp/consul/api"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// fleet is a Redis with many streams and a Consul with many origins.
type fleet struct {
	redis   *testkit.Redis
	consul  *testkit.Consul
	store   *store.Store
	streams int
	origins int      // registered
	epochs  []uint64 // of each stream's placement
}

// originTTL is the DNS answers': consul/server.hcl's for the service origin.
const originTTL = time.Second

// newFleet starts both servers and creates the streams. Redis doesn't fsync:
// only reads are measured.
func newFleet(t *harness.T, streams int) (*fleet, error) {
	f := &fleet{redis: testkit.NewRedis(t), consul: testkit.StartConsul(t, originTTL), streams: streams, epochs: make([]uint64, streams)}
	if err := harness.SetRedis(t.Context(), f.redis, "appendfsync", "no"); err != nil {
		return nil, err
	}
	var err error
	if f.store, err = store.Open(t.Context(), store.Options{StateURL: f.redis.URL(0), LiveURL: f.redis.URL(1)}); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	t.Cleanup(func() { _ = f.store.Close() })
	begin := time.Now()
	err = harness.Parallel(atOnce, count(streams), func(n int) error {
		return f.store.CreateStream(t.Context(), stream.Stream{ID: streamID(n), Profile: "360p", Window: stream.Seconds(stream.DefaultWindow.Seconds()), HoldBack: 12}, "none")
	})
	if err != nil {
		return nil, err
	}
	t.Logf("%d streams created in %.1f s", streams, time.Since(begin).Seconds())
	return f, nil
}

// atOnce is how many calls that prepare a fleet are in flight.
const atOnce = 32

func count(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

func streamID(n int) string { return fmt.Sprintf("stream-%06d", n) }
func originID(n int) string { return fmt.Sprintf("w%04d", n) }

// originAddr is the nth origin's own, so that a wrong answer is seen.
func originAddr(n int) string { return fmt.Sprintf("10.90.%d.%d", n>>8, n&255) }

// originPort is every origin's.
const originPort = 8091

// of returns the stream's origin.
func (f *fleet) of(stream int) int { return stream % f.origins }

// grow registers more origins, n in all, and places every stream on one of them.
func (f *fleet) grow(t *harness.T, n int) error {
	begin := time.Now()
	if err := f.register(f.origins, n); err != nil {
		return err
	}
	f.origins = n
	registered := time.Now()
	if err := harness.Parallel(atOnce, count(f.streams), func(n int) error { return f.place(t.Context(), n) }); err != nil {
		return err
	}
	t.Logf("%d origins registered in %.1f s, %d streams placed on them in %.1f s", n, registered.Sub(begin).Seconds(), f.streams, time.Since(registered).Seconds())
	return nil
}

// perCard is how many streams share a card: a commit adds up what its card holds.
const perCard = 16

func (f *fleet) place(ctx context.Context, n int) error {
	p, _ := stream.Builtin("360p")
	id, card := streamID(n), fmt.Sprintf("gpu-%04d", n/f.origins/perCard)
	epoch, err := f.store.Commit(ctx, store.Proposal{ExpectEpoch: f.epochs[n],
		Placement: stream.Placement{Stream: id, Broadcast: "b-" + id, Worker: originID(f.of(n)), Device: card, Boot: "boot",
			Reserved: []stream.Reservation{{Resource: card, Amount: 1}}, State: stream.PlacementPlaced, Profile: p},
		Limits: []capacity.Limit{{Limit: placement.Unbounded}}})
	f.epochs[n] = epoch
	return err
}

// register adds origins to Consul's catalogue: each a node, with a check of its
// own, and on it one instance of the service origin with its tag and its check,
// as a worker's agent has them.
func (f *fleet) register(from, to int) error {
	client, err := consul.NewClient(&consul.Config{Address: f.consul.HTTPAddr})
	if err != nil {
		return fmt.Errorf("preparing consul client: %w", err)
	}
	const most = 32 // origins of four operations each: a transaction takes 128
	for ; from < to; from += most {
		var ops consul.TxnOps
		for n := from; n < min(from+most, to); n++ {
			ops = append(ops, registration(n)...)
		}
		ok, answer, _, err := client.Txn().Txn(ops, nil)
		if err != nil {
			return fmt.Errorf("registering origins: %w", err)
		}
		if !ok {
			return fmt.Errorf("registering origins: %v", answer.Errors)
		}
	}
	return nil
}

// registration is that of the nth origin. Its node's check isn't called
// serfHealth: Consul removes nodes that have that and aren't in its gossip.
func registration(n int) consul.TxnOps {
	id, node := originID(n), "node-"+originID(n)
	service := discovery.OriginService + "-" + id
	return consul.TxnOps{
		{Node: &consul.NodeTxnOp{Verb: consul.NodeSet, Node: consul.Node{Node: node, Address: originAddr(n)}}},
		{Check: &consul.CheckTxnOp{Verb: consul.CheckSet, Check: consul.HealthCheck{Node: node, CheckID: "node-alive", Name: "Node alive", Status: consul.HealthPassing, Output: "Agent alive and reachable"}}},
		{Service: &consul.ServiceTxnOp{Verb: consul.ServiceSet, Node: node, Service: consul.AgentService{ID: service, Service: discovery.OriginService,
			Tags: []string{id}, Address: originAddr(n), Port: originPort}}},
		{Check: &consul.CheckTxnOp{Verb: consul.CheckSet, Check: consul.HealthCheck{Node: node, CheckID: service + "-alive", Name: "alive", Status: consul.HealthPassing, Output: "ready",
			ServiceID: service, ServiceName: discovery.OriginService}}},
	}
}
