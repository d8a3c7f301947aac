package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/stream"
)

func waits(id string, priority int, since time.Time, profile string) Waiting {
	return Waiting{Request: Request{Stream: id, Priority: priority, Profile: builtin(profile)}, Since: since}
}

func ids(list []Waiting) string {
	var out []string
	for _, w := range list {
		out = append(out, w.Request.Stream)
	}
	return strings.Join(out, " ")
}

func TestOrderAndBound(t *testing.T) {
	at := time.Unix(1000, 0)
	list := []Waiting{waits("young", 50, at.Add(2), "240p"), waits("b", 50, at, "240p"), waits("low", 1, at.Add(-9), "240p"), waits("a", 50, at, "240p"), waits("high", 90, at.Add(5), "240p")}
	if got := ids(Order(list)); got != "high a b young low" {
		t.Errorf("order %s", got)
	}
	if list[0].Request.Stream != "young" {
		t.Error("the list that was given changed")
	}
	kept, refused := Bound(list, 3)
	if ids(kept) != "high a b" || ids(refused) != "young low" {
		t.Errorf("kept %s, refused %s", ids(kept), ids(refused))
	}
	if kept, refused := Bound(list, 0); len(kept) != 5 || refused != nil {
		t.Errorf("a limit of 0 refuses %s", ids(refused))
	}
}

// A large ladder that has lost its patience is not overtaken; until then small
// ones go past it, and what it can never use is free to them.
func TestLine(t *testing.T) {
	at := time.Unix(1000, 0)
	fleet := &Snapshot{Workers: []Worker{cpuWorker("big", 100_000_000, held("cpu", 60_000_000)), cpuWorker("little", 30_000_000)}}
	first, small := waits("first", 50, at, "720p"), waits("small", 50, at.Add(1), "480p")
	higher := waits("higher", 60, at.Add(20*time.Second), "480p")
	onBig := small
	onBig.Request.Require = []stream.Rule{"class=big"}
	fleet.Workers[0].Report.Labels["class"] = "big"
	cases := map[string]struct {
		list  []Waiting
		after time.Duration
		want  map[string]string
	}{
		"patient":           {[]Waiting{first, onBig}, 20 * time.Second, map[string]string{"first": "px", "small": "big"}},
		"out of patience":   {[]Waiting{first, onBig}, 40 * time.Second, map[string]string{"first": "px", "small": "kept"}},
		"elsewhere is free": {[]Waiting{first, small}, 40 * time.Second, map[string]string{"first": "px", "small": "little"}},
		"higher goes past":  {[]Waiting{first, higher}, 40 * time.Second, map[string]string{"first": "px", "higher": "big"}},
		"a head that fits nowhere": {[]Waiting{{Request: Request{Stream: "first", Priority: 50, Profile: builtin("1080p"), Require: []stream.Rule{"class=none"}}, Since: at}, onBig},
			40 * time.Second, map[string]string{"first": "rule", "small": "big"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, w := range Line(fleet.Clone(), c.list, at.Add(c.after), DefaultPatience) {
				got := ""
				d, err := Decide(fleet.Clone(), w.Request)
				if no, ok := errors.AsType[*NoRoomError](err); ok {
					got = no.Telling[0].Reason.String()
				} else if got = d.Worker; err != nil {
					t.Fatal(err)
				}
				if want := c.want[w.Request.Stream]; got != want {
					t.Errorf("%s: %s, want %s (%v)", w.Request.Stream, got, want, err)
				}
			}
		})
	}
}

// Whatever waits and however full the fleet is: when it only empties, the first
// that lost its patience is placed before anything behind it takes its device.
func TestLineHolds(t *testing.T) {
	n := 0
	cases(t, &n)
	rapid.Check(t, func(t *rapid.T) {
		n++
		s := drawFleet(t)
		now := time.Unix(1000, 0)
		var list []Waiting
		for i := range rapid.IntRange(1, 8).Draw(t, "waiting") {
			r := drawRequest(t)
			r.Stream, r.Failover, r.Stay = fmt.Sprintf("s%d", i), false, ""
			list = append(list, Waiting{Request: r, Since: now.Add(-time.Duration(rapid.IntRange(0, 60).Draw(t, "waited")) * time.Second)})
		}
		line := Line(s, list, now, DefaultPatience)
		if ids(line) != ids(Order(list)) {
			t.Fatalf("line %s, order %s", ids(line), ids(Order(list)))
		}
		var head *Request
		for _, w := range line {
			d, err := Decide(s, w.Request)
			if w.Request.Behind != nil {
				if head == nil {
					head = w.Request.Behind
				}
				if head.Stream != w.Request.Behind.Stream {
					t.Fatal("two heads")
				}
				if err == nil && usableEmpty(s, *head, d) {
					t.Fatalf("%s took %s/%s, which is kept for %s", w.Request.Stream, d.Worker, d.Device, head.Stream)
				}
			} else if head != nil {
				t.Fatalf("%s is not behind %s", w.Request.Stream, head.Stream)
			}
			if err == nil {
				s.Apply(d)
			}
		}
	})
}

// usableEmpty asks whether head would fit on a decision's device, were the fleet empty.
func usableEmpty(s *Snapshot, head Request, d Decision) bool {
	c := s.Clone()
	for i := range c.Workers {
		c.Workers[i].Ledger = map[string]Load{}
		rep := &c.Workers[i].Report
		rep.Devices, rep.SessionsUsed = slices.Clone(rep.Devices), nil
		for j := range rep.Devices {
			rep.Devices[j].Used = nil
			if g := rep.Devices[j].GPU; g != nil {
				empty := *g
				empty.MemoryUsed = nil
				rep.Devices[j].GPU = &empty
			}
		}
	}
	for _, w := range c.Workers {
		for _, dev := range w.Report.Devices {
			if w.Report.Worker != d.Worker || dev.ID != d.Device {
				head.Avoid = append(head.Avoid, w.Report.Worker+"/"+dev.ID)
			}
		}
	}
	_, err := Decide(c, head)
	return err == nil
}
