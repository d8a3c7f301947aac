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

func TestOrder(t *testing.T) {
	at := time.Unix(1000, 0)
	list := []Waiting{waits("young", 50, at.Add(2), "240p"), waits("b", 50, at, "240p"), waits("low", 1, at.Add(-9), "240p"), waits("a", 50, at, "240p"), waits("high", 90, at.Add(5), "240p")}
	if got := ids(Order(list)); got != "high a b young low" {
		t.Errorf("order %s", got)
	}
	if list[0].Request.Stream != "young" {
		t.Error("the list that was given changed")
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

// One large ladder holds one device of a fleet, not all of it.
func TestLineKeepsOneDevice(t *testing.T) {
	now := time.Unix(1000, 0)
	first := waits("first", 50, now.Add(-time.Minute), "1080p")
	px := PriceProfile("cpu", first.Request.Profile).Px
	fleet := &Snapshot{Policy: Policy{Pack: true}}
	for i := range 50 {
		fleet.Workers = append(fleet.Workers, cpuWorker(fmt.Sprintf("w%02d", i), px*100/91, held("cpu", px/5)))
	}
	fleet.Workers[7].Ledger["cpu"] = Load{Reserved: px / 6, Streams: 1} // the least to be freed
	list := []Waiting{first}
	for i := range 60 {
		list = append(list, waits(fmt.Sprintf("small-%02d", i), 50, now.Add(-time.Second), "360p"))
	}
	for _, w := range Line(fleet, list, now, DefaultPatience) {
		d, err := Decide(fleet, w.Request)
		switch {
		case w.Request.Stream == "first":
			if err == nil {
				t.Fatal("the large one fits")
			}
			continue
		case err != nil:
			t.Fatalf("%s: %v", w.Request.Stream, err)
		case d.Worker == "w07" || w.Request.Behind.Worker != "w07":
			t.Fatalf("%s went to %s; kept is %+v", w.Request.Stream, d.Worker, w.Request.Behind)
		}
		fleet.Apply(d)
	}
	fleet.Return(Own{Worker: "w07", Reserved: []stream.Reservation{{Resource: "cpu", Amount: px / 6}}})
	if d, err := Decide(fleet, first.Request); err != nil || d.Worker != "w07" {
		t.Fatalf("when its device has drained: %+v, %v", d, err)
	}
}

// Whatever waits and however full the fleet is: the first that lost its patience
// is placed once the device that is kept for it has drained, whatever those behind
// it took; they leave that alone, and of the rest nothing is refused them but what
// it shares with that.
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
		var began *Snapshot // when the first behind the head has its turn
		var head *Head
		var first Request
		placed := map[string]bool{}
		for _, w := range line {
			d, err := Decide(s, w.Request)
			switch b := w.Request.Behind; {
			case b == nil && head != nil:
				t.Fatalf("%s is not behind %s", w.Request.Stream, head.Stream)
			case b == nil:
			case head == nil:
				head, began = b, s.Clone()
				i := slices.IndexFunc(line, func(w Waiting) bool { return w.Request.Stream == b.Stream })
				first = line[i].Request
			case head != b:
				t.Fatal("two heads")
			}
			if head != nil {
				if err == nil && d.Worker == head.Worker && d.Device == head.Device {
					t.Fatalf("%s took %s/%s, which is kept for %s", w.Request.Stream, d.Worker, d.Device, head.Stream)
				}
				alone := w.Request
				alone.Behind, alone.Avoid = nil, []string{head.Worker}
				if _, free := Decide(s, alone); err != nil && free == nil {
					t.Fatalf("%s is refused though another worker has room: %v", w.Request.Stream, err)
				}
			}
			if placed[w.Request.Stream] = err == nil; err == nil {
				s.Apply(d)
			}
		}
		if head == nil || placed[head.Stream] {
			return
		}
		s.Policy.Pack = false
		drain(s, began, head)
		first.Stay = head.Worker
		if d, err := Decide(s, first); err != nil {
			t.Fatalf("%s is refused though %s/%s has drained: %+v, %v", head.Stream, head.Worker, head.Device, d, err)
		}
	})
}

// drain takes from a head's worker all that was there when the device was kept.
func drain(s, began *Snapshot, head *Head) {
	w, was := *s.worker(head.Worker), began.worker(head.Worker)
	ledger := map[string]Load{}
	for resource, l := range w.Ledger {
		left := l.Reserved - was.Ledger[resource].Reserved
		ledger[resource] = Load{Reserved: left, Young: left, Streams: 1}
	}
	w.Ledger = ledger
	rep := &w.Report
	rep.Devices, rep.SessionsUsed = slices.Clone(rep.Devices), nil
	for j := range rep.Devices {
		rep.Devices[j].Used = nil
		if g := rep.Devices[j].GPU; g != nil {
			empty := *g
			empty.MemoryUsed = nil
			rep.Devices[j].GPU = &empty
		}
	}
	s.Put(w)
}
