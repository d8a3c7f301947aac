package nomad

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"
)

// Timing of a follower; see Follower.
type timing struct {
	relist   time.Duration // at least as often is everything listed
	gap      time.Duration // no more often than this
	retryMin time.Duration
	retryMax time.Duration
}

func defaults() timing {
	return timing{relist: 30 * time.Second, gap: 200 * time.Millisecond, retryMin: 250 * time.Millisecond, retryMax: 5 * time.Second}
}

// Follower knows Nomad's nodes.
//
//	subscribe ──▶ list ──▶ event ──▶ list …      the stream breaks ──▶ wait ──▶ subscribe
//	               ▲          or 30 s │
//	               └──────────────────┘
//
// An event is only a hint to list: the list is the truth, so an event that was
// lost, or came twice, changes nothing for long. While Nomad is away the nodes are
// as they were last.
type Follower struct {
	view   view
	log    hclog.Logger
	timing timing

	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	known map[string]*api.NodeListStub
}

// NewFollower returns one that has not started.
func NewFollower(c *Client, log hclog.Logger) *Follower { return newFollower(c, log, defaults()) }

func newFollower(v view, log hclog.Logger, t timing) *Follower {
	return &Follower{view: v, log: log.Named("nomad"), timing: t}
}

// Start follows until Stop. Nomad need not be there.
func (f *Follower) Start(ctx context.Context) {
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		f.run(ctx)
	}()
}

// Stop ends the following.
func (f *Follower) Stop(context.Context) {
	f.cancel()
	<-f.done
}

// Draining says why the node takes nothing new, "" when it does, or is not known.
func (f *Follower) Draining(node string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.known[node]
	switch {
	case !ok || node == "":
		return ""
	case n.Drain:
		return fmt.Sprintf("its Nomad node %s drains", n.Name)
	case n.SchedulingEligibility == api.NodeSchedulingIneligible:
		return fmt.Sprintf("its Nomad node %s is ineligible", n.Name)
	}
	return ""
}

// Down says whether Nomad holds the node for dead or cut off. It is a hint: Nomad
// misses the node's heartbeats, which says nothing certain of what runs there.
func (f *Follower) Down(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.known[node]
	return ok && node != "" && (n.Status == api.NodeStatusDown || n.Status == api.NodeStatusDisconnected)
}

func (f *Follower) run(ctx context.Context) {
	wait := f.timing.retryMin
	failing := false
	for {
		followed, err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if followed {
			wait, failing = f.timing.retryMin, false
		}
		if !failing {
			f.log.Warn("following Nomad failed; its nodes stay as they were, trying again", "error", err)
		}
		failing = true
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, f.timing.retryMax)
	}
}

// follow subscribes and lists until something fails. followed is set when a list
// has worked.
func (f *Follower) follow(ctx context.Context) (followed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type stream struct {
		events <-chan *api.Events
		err    error
	}
	// Nomad answers a subscription when there is something to say; the list does
	// not wait for that.
	opened := make(chan stream, 1)
	go func() {
		events, err := f.view.events(ctx)
		opened <- stream{events, err}
	}()
	var events <-chan *api.Events
	for {
		if err := f.list(ctx); err != nil {
			return followed, err
		}
		followed = true
		if !pause(ctx, f.timing.gap) {
			return followed, ctx.Err()
		}
		again := time.NewTimer(f.timing.relist)
		for look := false; !look; {
			select {
			case <-ctx.Done():
				again.Stop()
				return followed, ctx.Err()
			case s := <-opened:
				if s.err != nil {
					again.Stop()
					return followed, s.err
				}
				events, look = s.events, true // what has happened since the list
			case e, ok := <-events:
				if !ok || e.Err != nil {
					again.Stop()
					return followed, fmt.Errorf("nomad's event stream ended: %w", streamErr(e))
				}
				look = telling(e)
			case <-again.C:
				look = true
			}
		}
		again.Stop()
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func streamErr(e *api.Events) error {
	if e == nil || e.Err == nil {
		return io.ErrUnexpectedEOF
	}
	return e.Err
}

// telling says whether events may concern the state of a node: any of a node's own,
// and of allocations those that are lost with it.
func telling(events *api.Events) bool {
	for _, e := range events.Events {
		if e.Topic == api.TopicNode {
			return true
		}
		if a, ok := e.Payload["Allocation"].(map[string]any); ok {
			if status := a["ClientStatus"]; status == api.AllocClientStatusLost || status == api.AllocClientStatusUnknown {
				return true
			}
		}
	}
	return false
}

func (f *Follower) list(ctx context.Context) error {
	nodes, err := f.view.nodes(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]*api.NodeListStub, len(nodes))
	for _, n := range nodes {
		known[n.ID] = n
	}
	f.mu.Lock()
	before := f.known
	f.known = known
	f.mu.Unlock()
	for id, n := range known {
		if b, ok := before[id]; ok && b.Drain == n.Drain && b.SchedulingEligibility == n.SchedulingEligibility && b.Status == n.Status {
			continue
		}
		f.log.Info("a Nomad node", "name", n.Name, "id", n.ID, "status", n.Status, "drain", n.Drain, "eligibility", n.SchedulingEligibility)
	}
	return nil
}
