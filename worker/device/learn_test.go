package device

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

func TestOpenFailuresDouble(t *testing.T) {
	var l lessons
	now := newClock().now
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		e, ok := l.learn(Failure{Kind: OpenFailed, At: now})
		if got := e.Until.Sub(now); !ok || got != want*time.Minute {
			t.Fatalf("left alone for %s, want %d min", got, want)
		}
		// Others that fail with it change nothing.
		if again, ok := l.learn(Failure{Kind: OpenFailed, At: now.Add(time.Second)}); ok || again.Until != e.Until {
			t.Fatalf("a second failure at the same time taught %+v", again)
		}
		now = e.Until
	}
	now = now.Add(openForgotten + time.Second)
	if e, _ := l.learn(Failure{Kind: OpenFailed, At: now}); e.Until.Sub(now) != openFirst {
		t.Errorf("after it was well for long: %s", e.Until.Sub(now))
	}
}

// A device that is too slow again when it has forgotten keeps it for longer.
func TestSlowLessonsDouble(t *testing.T) {
	var l lessons
	now := newClock().now
	for _, want := range []time.Duration{10, 20, 40, 80, 120, 120} {
		e, ok := l.learn(Failure{Kind: TooSlow, InUse: 1000, At: now})
		if got := e.Until.Sub(now); !ok || got != want*time.Minute {
			t.Fatalf("kept for %s, want %d min", got, want)
		}
		// While it is known, another one renews it and doubles nothing.
		now = now.Add(time.Minute)
		if again, _ := l.learn(Failure{Kind: Throttled, InUse: 900, At: now}); again.Until.Sub(now) != want*time.Minute {
			t.Fatalf("renewed for %s, want %d min", again.Until.Sub(now), want)
		}
		now = now.Add(want * time.Minute)
	}
	now = now.Add(openForgotten + time.Second)
	if e, _ := l.learn(Failure{Kind: TooSlow, InUse: 1000, At: now}); e.Until.Sub(now) != learnedFor {
		t.Errorf("after it was well for long: %s", e.Until.Sub(now))
	}
}

func TestLessons(t *testing.T) {
	now := newClock().now
	until := now.Add(learnedFor)
	for _, c := range []struct {
		name     string
		failures []Failure
		want     []capacity.Learned
	}{
		{"too slow", []Failure{{Kind: TooSlow, Detail: "slow", InUse: 1000}}, []capacity.Learned{{Limit: "capacity", Value: 900, Why: "too slow: slow", Until: until}}},
		{"throttled, then less so", []Failure{{Kind: Throttled, Detail: "hot", InUse: 500}, {Kind: TooSlow, Detail: "x", InUse: 1000}},
			[]capacity.Learned{{Limit: "capacity", Value: 450, Why: "too slow: x", Until: until}}},
		{"too slow without a figure", []Failure{{Kind: TooSlow, Detail: "slow"}}, nil},
		{"memory", []Failure{{Kind: OutOfMemory, Detail: "m", Memory: 1000}}, []capacity.Learned{{Limit: "memory", Value: 950, Why: "out of memory: m", Until: until}}},
		{"memory unknown", []Failure{{Kind: OutOfMemory}}, nil},
		{"sessions", []Failure{{Kind: SessionCap, Detail: "s", Sessions: 3}}, []capacity.Learned{{Limit: "sessions", Value: 3, Why: "session cap: s", Until: until}}},
		{"a cap with no session", []Failure{{Kind: SessionCap, Detail: "s"}}, []capacity.Learned{{Limit: "usable", Why: "session cap: s", Until: now.Add(time.Minute)}}},
		{"several", []Failure{{Kind: SessionCap, Detail: "s", Sessions: 3}, {Kind: OutOfMemory, Detail: "m", Memory: 100}},
			[]capacity.Learned{{Limit: "memory", Value: 95, Why: "out of memory: m", Until: until}, {Limit: "sessions", Value: 3, Why: "session cap: s", Until: until}}},
		{"unheard of", []Failure{{Kind: "bored"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l lessons
			for _, f := range c.failures {
				f.At = now
				l.learn(f)
			}
			if diff := cmp.Diff(c.want, l.at(now)); diff != "" {
				t.Error(diff)
			}
			if left := l.at(until); left != nil {
				t.Errorf("not forgotten: %+v", left)
			}
		})
	}
}

func TestLearnedSessionsLimitAnyCard(t *testing.T) {
	now := newClock().now
	var l lessons
	l.learn(Failure{Kind: SessionCap, Sessions: 2, At: now})
	d := capacity.Device{ID: "gpu-1", Usable: true, GPU: &capacity.GPUState{SessionLimited: ptr(false), SessionCount: ptr(1)}}
	l.apply(&d, now)
	m := &Manager{cfg: Config{SessionLimit: -1}}
	limit, used := m.sessions([]capacity.Device{d})
	if !*d.GPU.SessionLimited || limit == nil || *limit != 2 || *used != 1 {
		t.Errorf("limit %v, used %v", limit, used)
	}
}

func TestSessionLimits(t *testing.T) {
	card := func(limited bool, sessions *int, driver string) capacity.Device {
		return capacity.Device{GPU: &capacity.GPUState{SessionLimited: &limited, SessionCount: sessions, Driver: &driver}}
	}
	for _, c := range []struct {
		name        string
		configured  int
		devices     []capacity.Device
		limit, used *int
	}{
		{"no limited card", 0, []capacity.Device{{}, card(false, ptr(3), "570.1")}, nil, nil},
		{"two", 0, []capacity.Device{card(true, ptr(3), "570.1"), card(true, ptr(1), "570.1"), card(false, ptr(9), "570.1")}, ptr(8), ptr(4)},
		{"SDK 13.1", 0, []capacity.Device{card(true, ptr(0), "610.43.02")}, ptr(12), ptr(0)},
		{"an unknown driver", 0, []capacity.Device{card(true, ptr(0), "")}, ptr(8), ptr(0)},
		{"one unknown", 0, []capacity.Device{card(true, ptr(3), "535.1"), card(true, nil, "535.1")}, ptr(5), nil},
		{"configured", 20, []capacity.Device{card(true, ptr(3), "570.1")}, ptr(20), ptr(3)},
		{"lifted", -1, []capacity.Device{card(true, ptr(3), "570.1")}, nil, ptr(3)},
	} {
		m := &Manager{cfg: Config{SessionLimit: c.configured}}
		limit, used := m.sessions(c.devices)
		if diff := cmp.Diff([]*int{c.limit, c.used}, []*int{limit, used}); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name, architecture string
		mig                bool
		engines            int
		fps                int64 // 0 when unknown
	}{
		{"NVIDIA GeForce RTX 4090", "Ada", false, 2, 647},
		{"NVIDIA GeForce RTX 4090 Laptop GPU", "Ada", false, 1, 647},
		{"NVIDIA GeForce RTX 4070 Ti SUPER", "Ada", false, 2, 647},
		{"NVIDIA GeForce RTX 4060", "Ada", false, 1, 647},
		{"NVIDIA GeForce RTX 5090", "Blackwell", false, 3, 708},
		{"NVIDIA L4", "Ada", false, 2, 647},
		{"NVIDIA L40", "Ada", false, 3, 647},
		{"NVIDIA L40S", "", false, 3, 647},
		{"NVIDIA RTX 6000 Ada Generation", "Ada", false, 3, 647},
		{"NVIDIA A10", "Ampere", false, 1, 617},
		{"NVIDIA A16", "Ampere", false, 1, 617},
		{"NVIDIA A2", "Ampere", false, 1, 617},
		{"Tesla T4", "Turing", false, 1, 602},
		{"NVIDIA A100-SXM4-80GB", "Ampere", false, 0, 617},
		{"NVIDIA A100 80GB PCIe", "Ampere", true, 0, 617},
		{"NVIDIA H100 80GB HBM3", "Hopper", false, 0, 0},
		{"NVIDIA H200", "Hopper", false, 0, 0},
		{"NVIDIA GH200 480GB", "", false, 0, 0},
		{"NVIDIA Hopper of the future", "Hopper", false, 0, 0},
		{"NVIDIA B200", "Blackwell", false, 0, 708},
		{"NVIDIA GB200", "Blackwell", false, 0, 708},
		{"NVIDIA RTX PRO 6000 Blackwell Server Edition", "Blackwell", false, 4, 708},
		{"NVIDIA RTX PRO 6000 Blackwell Server Edition", "Blackwell", true, 1, 708},
		{"NVIDIA Something", "Pascal", false, 1, 0},
		{"NVIDIA Something", "", false, 1, 0},
	} {
		px, ok := enginePxPerS(c.name, c.architecture)
		if n := engines(c.name, c.architecture, c.mig); n != c.engines || ok != (c.fps > 0) || px != c.fps*1920*1080 {
			t.Errorf("%s (%s, MIG %v): %d engines of %d px/s (%v)", c.name, c.architecture, c.mig, n, px, ok)
		}
	}
}
