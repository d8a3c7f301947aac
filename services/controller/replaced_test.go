package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
)

// database is one that a test empties under controllers that it turns by hand.
type database struct {
	t      *testing.T
	url    string
	client *redis.Client
	store  *store.Store
	at     time.Time // what the controllers take the time to be
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	d := &database{t: t, url: testkit.NewRedis(t).URL(0), at: time.Now()}
	opt, err := redis.ParseURL(d.url)
	must(t, err)
	d.client = redis.NewClient(opt)
	t.Cleanup(func() { _ = d.client.Close() })
	d.store, err = store.Open(t.Context(), store.Options{StateURL: d.url})
	must(t, err)
	t.Cleanup(func() { _ = d.store.Close() })
	return d
}

func (d *database) controller(holder string, change func(Store) Store) *Controller {
	d.t.Helper()
	c, _ := stillOn(d.t, d.url, func(cfg *Config, s Store) Store {
		cfg.Holder, cfg.LeaseTTL = holder, 3*time.Second
		if change != nil {
			return change(s)
		}
		return s
	})
	c.now = func() time.Time { return d.at }
	return c
}

func (d *database) flush() { must(d.t, d.client.FlushAll(d.t.Context()).Err()) }

func (d *database) create(id string) {
	d.t.Helper()
	must(d.t, d.store.CreateStream(d.t.Context(), stream.Stream{ID: id, Profile: "240p", Grace: 15, HoldBack: 12, Window: 60}, "hash"))
}

func (d *database) publish(ids ...string) {
	d.t.Helper()
	r := store.IngestReport{Node: "n1", Boot: "b", RTMP: "127.0.0.1:1935", RTSP: "127.0.0.1:8554"}
	for _, id := range ids {
		r.Paths = append(r.Paths, store.IngestPath{Stream: id, Session: "s", Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}, ReadySince: d.at})
	}
	must(d.t, d.store.PutIngestReport(d.t.Context(), r))
}

func (d *database) worker(id string, px int64) {
	d.t.Helper()
	off := 0.0
	must(d.t, d.store.PutReport(d.t.Context(), capacity.Report{Worker: id, Boot: "boot", Origin: id + ":1", Queue: task.Queue(id), ClockErrorMillis: &off, Ready: true,
		Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Capacity: &px}}}))
}

// leads makes a replica lead, which must get the lease.
func (d *database) leads(c *Controller) {
	d.t.Helper()
	token, ok, err := c.stand(d.t.Context())
	if err != nil || !ok {
		d.t.Fatalf("%s does not get the lease: %v, %v", c.cfg.Holder, ok, err)
	}
	c.begin(token)
}

// The lease goes with the database: the one that led takes it again and others leave
// it to it, for as long as a lease lasts.
func TestTheFormerLeaderGoesFirst(t *testing.T) {
	d := newDatabase(t)
	first, second := d.controller("first", nil), d.controller("second", nil)
	ctx := t.Context()
	d.leads(first)
	if _, ok, err := second.stand(ctx); err != nil || ok {
		t.Fatalf("two lead: %v, %v", ok, err)
	}
	d.flush()
	d.at = d.at.Add(time.Second)
	if _, ok, err := second.stand(ctx); err != nil || ok {
		t.Fatalf("another replica takes the lease first: %v, %v", ok, err)
	}
	if renewed, leads := first.renew(ctx); !renewed || !leads {
		t.Fatal("the leader does not take its lease again")
	}
	// That one is gone: the other does not wait for ever.
	d.flush()
	if _, ok, err := second.stand(ctx); err != nil || ok {
		t.Fatalf("it does not wait: %v, %v", ok, err)
	}
	d.at = d.at.Add(first.cfg.LeaseTTL)
	d.leads(second)
	if renewed, leads := first.renew(ctx); renewed || leads {
		t.Fatal("two lead")
	}
	if _, ok, _ := first.stand(ctx); ok || first.token != 0 {
		t.Fatal("it does not notice that another has led")
	}
}

// A database that is replaced again before the wait for the former leader is over
// doesn't begin that anew: somebody leads at last.
func TestAnotherLossLengthensNoWait(t *testing.T) {
	d := newDatabase(t)
	c := d.controller("second", nil)
	ctx := t.Context()
	if _, ok, err := d.store.AcquireLease(ctx, lease, "first", time.Minute); err != nil || !ok {
		t.Fatal(ok, err)
	}
	for i := range 3 { // and "first" is gone
		if _, ok, err := c.stand(ctx); err != nil || ok {
			t.Fatalf("it leads after %d losses: %v", i, err)
		}
		d.flush()
		d.at = d.at.Add(c.cfg.LeaseTTL * 2 / 3)
	}
	d.leads(c)
}

// Redis was away for longer than a lease lasts, and is another database when it is
// back: what the leader remembers of broadcasts goes on, unless another has led.
func TestBroadcastsOutliveTheLease(t *testing.T) {
	for name, another := range map[string]bool{"nobody led in between": false, "another led in between": true} {
		t.Run(name, func(t *testing.T) {
			d := newDatabase(t)
			c := d.controller("first", nil)
			ctx := t.Context()
			d.leads(c)
			d.create("show")
			d.publish("show")
			c.turn(ctx)
			before, err := d.store.Broadcast(ctx, "show")
			must(t, err)
			if another {
				must(t, d.store.ReleaseLease(ctx, lease, "first"))
				if _, ok, err := d.store.AcquireLease(ctx, lease, "second", time.Minute); err != nil || !ok {
					t.Fatal(ok, err)
				}
				must(t, d.store.ReleaseLease(ctx, lease, "second"))
				must(t, d.client.Del(ctx, "dionysia:generation", "dionysia:broadcast:show").Err())
			} else {
				d.flush()
				d.create("show")
			}
			d.at = d.at.Add(2 * c.cfg.LeaseTTL)
			if _, leads := c.renew(ctx); leads {
				t.Fatal("it still leads")
			}
			d.leads(c)
			d.publish("show")
			c.turn(ctx)
			b, err := d.store.Broadcast(ctx, "show")
			must(t, err)
			if (b.ID == before.ID) == another {
				t.Fatalf("broadcast %s goes on as %s", before.ID, b.ID)
			}
		})
	}
}

// loses loses everything once: before a commit, or after one that was outrun, before
// its placement is read again.
type loses struct {
	Store
	flush  func()
	outrun bool
}

func (s *loses) lose() {
	if f := s.flush; f != nil {
		s.flush = nil
		f()
	}
}

func (s *loses) Commit(ctx context.Context, p store.Proposal) (uint64, error) {
	if s.flush != nil && s.outrun {
		return 0, stream.ErrConflict
	}
	s.lose()
	return s.Store.Commit(ctx, p)
}

func (s *loses) Placement(ctx context.Context, id string) (stream.Placement, error) {
	s.lose()
	return s.Store.Placement(ctx, id)
}

// State is emptied before a commit of a stream that was placed before: no epoch is
// given again in its place, and nothing is committed until the workers have reported.
func TestStateIsLostBeforeACommit(t *testing.T) { lostBeforeACommit(t, false) }

func TestStateIsLostAfterACommitWasOutrun(t *testing.T) { lostBeforeACommit(t, true) }

func lostBeforeACommit(t *testing.T, outrun bool) {
	t.Helper()
	d := newDatabase(t)
	ctx := t.Context()
	var wrapped *loses
	c := d.controller("first", func(s Store) Store {
		wrapped = &loses{Store: s, outrun: outrun}
		return wrapped
	})
	d.create("show")
	prof, _ := stream.Builtin("240p")
	px := placement.PriceProfile(capacity.CPU, prof).Px
	epoch, err := d.store.Commit(ctx, store.Proposal{Limits: []capacity.Limit{{Limit: px}}, Placement: stream.Placement{Stream: "show", Broadcast: "b", Worker: "w1",
		Device: "cpu", Boot: "boot", State: stream.PlacementPlaced, Profile: prof, Reserved: []stream.Reservation{{Resource: "cpu", Amount: px}}}})
	must(t, err)
	must(t, d.store.Release(ctx, "show", epoch))
	d.leads(c)
	d.worker("w1", px)
	d.publish("show")
	c.turn(ctx) // it settles first
	d.at = d.at.Add(c.cfg.Hold)
	wrapped.flush = d.flush
	d.worker("w1", px)
	c.turn(ctx)
	if wrapped.flush != nil {
		t.Fatal("nothing was committed")
	}
	if p, err := d.store.Placement(ctx, "show"); !errors.Is(err, stream.ErrNotFound) {
		t.Fatalf("committed in a state that was lost: %+v, %v", p, err)
	}
}

// All state is lost, and what is lost comes back long after the leader believes what
// it reads again: the publisher's broadcast goes on meanwhile. One whose publisher
// leaves ends after its grace, and one that is deleted at once.
func TestLostStreamsGoOn(t *testing.T) {
	d := newDatabase(t)
	c := d.controller("test", nil)
	ctx := t.Context()
	d.leads(c)
	ids := []string{"deleted", "left", "show"}
	var sending []string
	turns := func(n int) {
		for range n {
			d.publish(sending...) // a report expires by real time, whatever c takes the time to be
			c.turn(ctx)
			d.at = d.at.Add(c.cfg.Interval)
		}
	}
	state := func(id string) stream.BroadcastState {
		if s := c.streams[id]; s != nil && s.broadcast != nil {
			return s.broadcast.State
		}
		return "none"
	}
	for _, id := range ids {
		d.create(id)
	}
	sending = ids
	turns(1)
	before := c.streams["show"].broadcast.ID
	d.flush()
	sending = []string{"show"}
	turns(4) // with the hold
	if a, b := state("show"), state("left"); a != stream.BroadcastLive || b != stream.BroadcastGrace {
		t.Fatalf("after the loss: %s and %s", a, b)
	}
	d.create("deleted")
	must(t, d.store.DeleteStream(ctx, "deleted"))
	sending = []string{"show", "deleted"}
	turns(1)
	if s := state("deleted"); s != "none" { // ended and forgotten
		t.Fatalf("the deleted one is %s", s)
	}
	sending = []string{"show"}
	turns(60)
	if a, b := state("show"), state("left"); a != stream.BroadcastLive || b != "none" {
		t.Fatalf("half a minute later: %s and %s", a, b)
	}
	d.create("show")
	turns(1)
	b, err := d.store.Broadcast(ctx, "show")
	must(t, err)
	if b.ID != before || b.State != stream.BroadcastLive {
		t.Fatalf("the broadcast %s goes on as %+v", before, b)
	}
}

// A copy of state is restored in which a stream was deleted that was created again
// later: the deletion doesn't end the broadcast, nor its grace.
func TestAFormerDeletionEndsNothing(t *testing.T) {
	d := newDatabase(t)
	c := d.controller("test", nil)
	ctx := t.Context()
	d.leads(c)
	d.create("show")
	d.publish("show")
	c.turn(ctx)
	must(t, d.store.DeleteStream(ctx, "show"))
	must(t, d.client.HSet(ctx, "dionysia:deleted-streams", "show", d.at.Add(-time.Hour).Unix()).Err())
	is := func(want stream.BroadcastState) {
		t.Helper()
		d.at = d.at.Add(c.cfg.Interval)
		c.turn(ctx)
		if s := c.streams["show"]; s == nil || s.broadcast.State != want {
			t.Fatalf("%+v, want %s", s, want)
		}
	}
	is(stream.BroadcastLive)
	d.at = d.at.Add(c.cfg.Hold)
	d.publish()
	is(stream.BroadcastGrace)
	is(stream.BroadcastGrace)
}

// The epochs that a leader has given are forgotten when nothing names them any more,
// and not before, nor while the stream is live.
func TestForgetsEpochs(t *testing.T) {
	d := newDatabase(t)
	c := d.controller("first", nil)
	d.leads(c)
	for id, age := range map[string]time.Duration{"old": stream.EpochMemory + time.Second, "live": 2 * stream.EpochMemory, "young": stream.EpochMemory - time.Hour} {
		c.state.epochs[id] = given{7, d.at.Add(-age)}
	}
	c.streams["live"] = &streamSeen{}
	c.forgetEpochs(d.at)
	if len(c.state.epochs) != 2 || c.state.epochs["old"].epoch != 0 {
		t.Fatalf("it remembers %v", c.state.epochs)
	}
}
