package nomad

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// fake is a Nomad that says what a test tells it to.
type fake struct {
	mu      sync.Mutex
	list    []*api.NodeListStub
	away    bool
	streams []chan *api.Events
	lists   int
}

func (f *fake) nodes(context.Context) ([]*api.NodeListStub, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, errors.New("connection refused")
	}
	f.lists++
	var out []*api.NodeListStub
	for _, n := range f.list {
		c := *n
		out = append(out, &c)
	}
	return out, nil
}

func (f *fake) events(context.Context) (<-chan *api.Events, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, errors.New("connection refused")
	}
	ch := make(chan *api.Events, 10)
	f.streams = append(f.streams, ch)
	return ch, nil
}

func (f *fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) opened() (n int) {
	f.do(func() { n = len(f.streams) })
	return n
}

// say sends an event on the newest stream.
func (f *fake) say(e *api.Events) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams[len(f.streams)-1] <- e
}

func nodeEvent() *api.Events {
	return &api.Events{Index: 1, Events: []api.Event{{Topic: api.TopicNode, Type: "NodeDrain"}}}
}

// never is a period that no test waits out.
const never = time.Hour

func startFake(t *testing.T, change func(*timing)) (*fake, *Follower) {
	t.Helper()
	v := &fake{list: []*api.NodeListStub{{ID: "1", Name: "n1", Status: api.NodeStatusReady, SchedulingEligibility: api.NodeSchedulingEligible}}}
	tm := timing{relist: never, gap: time.Millisecond, retryMin: time.Millisecond, retryMax: 10 * time.Millisecond}
	if change != nil {
		change(&tm)
	}
	f := newFollower(v, hclog.NewNullLogger(), tm)
	f.Start(t.Context())
	t.Cleanup(func() { f.Stop(context.Background()) })
	// The list that follows the subscription has been made.
	eventually(t, "the subscription", func() bool { var n int; v.do(func() { n = v.lists }); return v.opened() == 1 && n >= 2 })
	return v, f
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestEventsMakeItList(t *testing.T) {
	v, f := startFake(t, nil)
	if f.Draining("1") != "" || f.Down("1") || f.Draining("unknown") != "" || f.Down("") {
		t.Error("a ready node drains or is down")
	}
	v.do(func() { v.list[0].Drain = true })
	v.say(nodeEvent())
	eventually(t, "the drain", func() bool { return f.Draining("1") == "its Nomad node n1 drains" })
	v.do(func() { v.list[0].Drain, v.list[0].SchedulingEligibility = false, api.NodeSchedulingIneligible })
	v.say(nodeEvent())
	eventually(t, "what a drain leaves behind", func() bool { return f.Draining("1") == "its Nomad node n1 is ineligible" })
	v.do(func() { v.list[0].Status = api.NodeStatusDown })
	v.say(&api.Events{Index: 2, Events: []api.Event{{Topic: api.TopicAllocation, Payload: map[string]any{
		"Allocation": map[string]any{"ClientStatus": "lost"}}}}})
	eventually(t, "the node's end, by a lost allocation", func() bool { return f.Down("1") })
}

func TestStreamBreaks(t *testing.T) {
	for name, breaks := range map[string]func(*fake){
		"with an error": func(v *fake) { v.say(&api.Events{Err: errors.New("unexpected EOF")}) },
		"closed":        func(v *fake) { v.do(func() { close(v.streams[0]) }) },
	} {
		t.Run(name, func(t *testing.T) {
			v, f := startFake(t, nil)
			// What happens while the stream is broken is in no event.
			v.do(func() { v.list[0].Drain = true })
			breaks(v)
			eventually(t, "another subscription", func() bool { return v.opened() >= 2 })
			eventually(t, "what was missed", func() bool { return f.Draining("1") != "" })
		})
	}
}

func TestNomadIsAway(t *testing.T) {
	v, f := startFake(t, nil)
	v.do(func() { v.list[0].Drain = true })
	v.say(nodeEvent())
	eventually(t, "the drain", func() bool { return f.Draining("1") != "" })
	before := v.opened()
	v.do(func() { v.away = true; close(v.streams[before-1]) })
	// It keeps what it knew, and comes back by itself.
	if f.Draining("1") == "" {
		t.Error("the drain is forgotten while Nomad is away")
	}
	v.do(func() { v.away, v.list[0].Drain = false, false })
	eventually(t, "the end of the drain", func() bool { return f.Draining("1") == "" })
}

func TestLostEventOnlyDelays(t *testing.T) {
	v, f := startFake(t, func(t *timing) { t.relist = 20 * time.Millisecond })
	v.do(func() { v.list[0].Drain = true })
	eventually(t, "the drain without an event", func() bool { return f.Draining("1") != "" })
}

func TestTokenIsReadForEachRequest(t *testing.T) {
	c, err := NewClient(Options{Addr: "http://127.0.0.1:1", Token: func() (string, error) { return "", errors.New("the file is gone") }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes(t.Context()); err == nil || !strings.Contains(err.Error(), "the file is gone") {
		t.Errorf("error %v", err)
	}
}
