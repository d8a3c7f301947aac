package placement

import (
	"fmt"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func ptr[T any](v T) *T { return &v }

// cpuWorker is a worker with a CPU of that many px/s, and what the edits make of it.
func cpuWorker(id string, px int64, edit ...func(*Worker)) Worker {
	w := Worker{
		Report: capacity.Report{Worker: id, Boot: "b-" + id, Ready: true, ClockErrorMillis: ptr(1.0), Labels: map[string]string{},
			Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Codecs: []string{"h264"}, Capacity: ptr(px)}}},
		Ledger: map[string]Load{},
	}
	for _, e := range edit {
		e(&w)
	}
	return w
}

// held makes streams hold an amount of a resource, none of it young.
func held(resource string, amount int64) func(*Worker) {
	return func(w *Worker) { w.Ledger[resource] = Load{Reserved: amount, Streams: 1} }
}

func label(k, v string) func(*Worker) { return func(w *Worker) { w.Report.Labels[k] = v } }

// gpu adds a card of two engines.
func gpu(id string, px int64, edit ...func(*capacity.Device)) func(*Worker) {
	return func(w *Worker) {
		d := capacity.Device{ID: id, Kind: capacity.GPU, Usable: true, Codecs: []string{"h264", "hevc"}, Capacity: &px,
			SessionMax: ptr(px / 2), GPU: &capacity.GPUState{MemoryTotal: ptr(int64(24 << 30)), MemoryUsed: ptr(int64(0))}}
		for _, e := range edit {
			e(&d)
		}
		w.Report.Devices = append(w.Report.Devices, d)
	}
}

// used makes that many px/s of a device measured.
func used(px int64) func(*capacity.Device) {
	return func(d *capacity.Device) { d.Used = &px }
}

// geforce makes a card's sessions count against the system's limit.
func geforce(d *capacity.Device) { d.GPU.SessionLimited = ptr(true) }

func sessionLimit(n int) func(*Worker) {
	return func(w *Worker) { w.Report.SessionLimit = &n }
}

func dev(edit func(*capacity.Device)) func(*Worker) {
	return func(w *Worker) { edit(&w.Report.Devices[0]) }
}

func builtin(name string) stream.Profile {
	p, ok := stream.Builtin(name)
	if !ok {
		panic(name)
	}
	return p
}

// drawFleet makes a mixed fleet: CPU workers, GPUs with and without limited
// sessions, with what can be wrong with each, and loads.
func drawFleet(t *rapid.T) *Snapshot {
	s := &Snapshot{Policy: drawPolicy(t)}
	for i := range rapid.IntRange(0, 6).Draw(t, "workers") {
		w := cpuWorker(fmt.Sprintf("w%d", i), rapid.SampledFrom([]int64{1, 40_000_000, 150_000_000, 600_000_000}).Draw(t, "cpu"))
		w.Lost = rapid.IntRange(0, 14).Draw(t, "lost") == 0
		w.Report.Drain = rapid.IntRange(0, 14).Draw(t, "drain") == 0
		w.Report.Labels["class"] = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "class")
		for j := range rapid.IntRange(0, 3).Draw(t, "gpus") {
			gpu(fmt.Sprintf("gpu-%d-%d", i, j), rapid.SampledFrom([]int64{20_000_000, 200_000_000, 2_000_000_000}).Draw(t, "gpu"), func(d *capacity.Device) {
				d.Usable = rapid.IntRange(0, 9).Draw(t, "usable") > 0
				d.GPU.MemoryTotal = rapid.SampledFrom([]*int64{nil, ptr(int64(1 << 30)), ptr(int64(24 << 30))}).Draw(t, "memory")
				d.GPU.MemoryUsed = rapid.SampledFrom([]*int64{nil, ptr(int64(0)), ptr(int64(800 << 20))}).Draw(t, "memory used")
				if rapid.Bool().Draw(t, "geforce") {
					geforce(d)
				}
				if rapid.Bool().Draw(t, "hevc") {
					d.Codecs = []string{"h264"}
				}
			})(&w)
		}
		if rapid.Bool().Draw(t, "capped") {
			w.Report.SessionLimit = ptr(rapid.IntRange(0, 12).Draw(t, "sessions"))
		}
		for k := range w.Report.Devices {
			d := &w.Report.Devices[k]
			if rapid.IntRange(0, 19).Draw(t, "unmeasured") == 0 {
				d.Capacity = nil
				continue
			}
			reserved := *d.Capacity / 100 * rapid.Int64Range(0, 100).Draw(t, "reserved")
			w.Ledger[d.ID] = Load{Reserved: reserved, Young: rapid.Int64Range(0, reserved).Draw(t, "young"), Streams: 1}
			if rapid.Bool().Draw(t, "measured") {
				d.Used = ptr(*d.Capacity / 100 * rapid.Int64Range(0, 100).Draw(t, "used"))
			}
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

func drawPolicy(t *rapid.T) Policy {
	return Policy{Pack: rapid.Bool().Draw(t, "pack"), Reserve: rapid.SampledFrom([]float64{0, 0.1, 0.5}).Draw(t, "reserve")}
}

func drawProfile(t *rapid.T) stream.Profile {
	p := builtin(rapid.SampledFrom([]string{"1080p", "720p", "480p", "360p", "240p"}).Draw(t, "profile"))
	p.Video = append([]stream.VideoRendition(nil), p.Video...)
	preset := rapid.SampledFrom(stream.Presets()).Draw(t, "preset")
	codec := rapid.SampledFrom([]string{"h264", "h264", "h264", "hevc"}).Draw(t, "codec")
	for i := range p.Video {
		p.Video[i].Preset, p.Video[i].Codec = preset, codec
	}
	return p
}

func drawRequest(t *rapid.T) Request {
	r := Request{Stream: "s", Profile: drawProfile(t), Degrade: rapid.Bool().Draw(t, "degrade"), Failover: rapid.Bool().Draw(t, "failover"),
		Priority: rapid.IntRange(0, 100).Draw(t, "priority")}
	if rapid.IntRange(0, 3).Draw(t, "requires") == 0 {
		r.Require = []stream.Rule{rapid.SampledFrom([]stream.Rule{"device=gpu", "device=cpu", "class=a", "class!=a"}).Draw(t, "require")}
	}
	if rapid.Bool().Draw(t, "prefers") {
		r.Prefer = []stream.Rule{"class=b", "device=cpu"}
	}
	if rapid.Bool().Draw(t, "stays") {
		r.Stay = "w1"
	}
	return r
}

// over says which resource of a snapshot holds more than it may; it counts by
// the reports and ledgers alone. A resource that the fleet began with above its
// limit is not asked for.
func over(w *Worker, d Decision, failover bool, reserve float64) string {
	for _, r := range d.Reserved {
		l, ok := w.Report.Limit(r.Resource)
		if !ok {
			continue
		}
		load := w.Ledger[r.Resource]
		taken := load.Reserved
		if l.Used != nil {
			taken = max(taken, *l.Used+load.Young)
		}
		bound := float64(l.Limit)
		if !failover {
			bound *= 1 - reserve
		}
		if float64(taken+r.Amount) > bound+1e-6 {
			return fmt.Sprintf("%s of %s: %d taken, %d more, at most %.0f", r.Resource, w.Report.Worker, taken, r.Amount, bound)
		}
	}
	return ""
}

func (s *Snapshot) worker(id string) *Worker {
	for i := range s.Workers {
		if s.Workers[i].Report.Worker == id {
			return &s.Workers[i]
		}
	}
	return nil
}
