package placement

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// A snapshot that is kept and changed decides like one made anew of the same
// workers; so does one that remembers refusals.
func TestSnapshotKeptIsFresh(t *testing.T) {
	n, placed := 0, 0
	t.Cleanup(func() { t.Logf("%d decisions, %d of them placed", n, placed) })
	rapid.Check(t, func(t *rapid.T) {
		s := drawFleet(t)
		var done []Decision
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			r := drawRequest(t)
			got, err := Decide(s, r)
			want, err2 := Decide(s.Clone(), r)
			if !reflect.DeepEqual(got, want) || (err == nil) != (err2 == nil) {
				t.Fatalf("kept: %+v (%v); fresh: %+v (%v)", got, err, want, err2)
			}
			n++
			if err == nil {
				placed++
			}
			switch step := rapid.IntRange(0, 5).Draw(t, "step"); {
			case err == nil && step < 3:
				s.Apply(got)
				done = append(done, got)
			case step == 3 && len(done) > 0:
				d := done[len(done)-1]
				done = done[:len(done)-1]
				s.Return(Own{Worker: d.Worker, Reserved: d.Reserved, Young: rapid.Bool().Draw(t, "young")})
			case step == 4:
				w := cpuWorker(fmt.Sprintf("w%d", rapid.IntRange(0, 8).Draw(t, "put")), 300_000_000, label("new", fmt.Sprint(rapid.IntRange(0, 99).Draw(t, "label"))))
				if rapid.Bool().Draw(t, "with a gpu") {
					gpu("gpu-new", 900_000_000)(&w)
				}
				s.Put(w)
			case step == 5:
				s.Remove(fmt.Sprintf("w%d", rapid.IntRange(0, 8).Draw(t, "remove")))
			}
		}
	})
}

// A refusal is remembered only until something may have got room.
func TestRefusalIsForgotten(t *testing.T) {
	full := func() *Snapshot {
		return &Snapshot{Workers: []Worker{cpuWorker("a", 100_000_000, held("cpu", 60_000_000))}}
	}
	r := Request{Stream: "s", Profile: builtin("720p")}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		room   bool
	}{
		"nothing": {func(*Snapshot) {}, false},
		"returned": {func(s *Snapshot) {
			s.Return(Own{Worker: "a", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 60_000_000}}})
		}, true},
		"put":      {func(s *Snapshot) { s.Put(cpuWorker("b", 100_000_000)) }, true},
		"replaced": {func(s *Snapshot) { s.Put(cpuWorker("a", 100_000_000)) }, true},
		"removed":  {func(s *Snapshot) { s.Remove("a") }, false},
	} {
		s := full()
		_, err := Decide(s, r)
		if err == nil {
			t.Fatalf("%s: there is room", name)
		}
		c.change(s)
		again := r
		again.Stream = "t"
		_, err = Decide(s, again)
		if (err == nil) != c.room {
			t.Errorf("%s: %v, room %v", name, err, c.room)
		}
		if no, ok := errors.AsType[*NoRoomError](err); ok && no.Stream != "t" {
			t.Errorf("%s: the refusal is of %s", name, no.Stream)
		}
		if name == "removed" && !strings.Contains(err.Error(), "no worker has reported") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Labels that come and go leave no more sets behind than a bound.
func TestSnapshotForgetsLabels(t *testing.T) {
	s := &Snapshot{Workers: []Worker{cpuWorker("a", 1_000_000_000), cpuWorker("b", 1_000_000_000, label("n", "b"))}}
	for i := range 1000 {
		s.Put(cpuWorker("a", 1_000_000_000, label("n", fmt.Sprint(i))))
	}
	if got := len(s.view.labels); got > 100 {
		t.Errorf("%d sets of labels are kept", got)
	}
	for rule, want := range map[stream.Rule]string{"n=999": "a", "n=b": "b"} {
		if d, err := Decide(s, Request{Profile: builtin("720p"), Require: []stream.Rule{rule}}); err != nil || d.Worker != want {
			t.Errorf("%s: %+v, %v", rule, d, err)
		}
	}
}

// A stream's own reservation, and its part of what is measured, do not count
// against it; the rest does.
func TestOwnIsGivenBack(t *testing.T) {
	own := func(amount int64, young bool) Own {
		return Own{Worker: "a", Young: young, Reserved: []stream.Reservation{{Resource: "cpu", Amount: amount}}}
	}
	for name, c := range map[string]struct {
		load Load
		used *int64
		own  Own
		want int64
	}{
		"not measured":      {Load{100, 0, 2}, nil, own(40, false), 60},
		"its share":         {Load{100, 0, 2}, ptr(int64(50)), own(40, false), 60},
		"less than its own": {Load{100, 0, 2}, ptr(int64(100)), own(40, false), 60},
		"others' use":       {Load{100, 0, 2}, ptr(int64(1000)), own(40, false), 960},
		"young":             {Load{100, 40, 2}, ptr(int64(90)), own(40, true), 90},
		"ripe beside young": {Load{100, 40, 2}, ptr(int64(60)), own(30, false), 70},
		"more than held":    {Load{10, 0, 1}, nil, own(40, false), 0},
	} {
		a := account{room: room{limit: 1, open: 1}, load: c.load, used: c.used}.without(c.own.Reserved[0].Amount, c.own.Young)
		if a.held != c.want {
			t.Errorf("%s: %d, want %d", name, a.held, c.want)
		}
	}
}
