package fleet

import (
	"math"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Dionysia is the product's own policy: placement.Decide over the workers' reports
// and ledgers, where each stream reserves its profile's price, and its source's
// after the probe.
type Dionysia struct {
	snapshot *placement.Snapshot
	policy   placement.Policy
	ledgers  []map[string]placement.Load // by worker
	held     map[int]holding             // by broadcast
	young    []aging                     // in order of time
	dirty    map[int]struct{}            // workers whose ledger is newer than the snapshot's
	reported float64                     // the time of the reports in the snapshot
	standing []uint64                    // what the snapshot says of each worker; see Worker.standing
	byName   map[string]int
}

type holding struct {
	worker   int
	reserved []stream.Reservation
	young    bool
	turn     int
}

type aging struct {
	at   float64
	id   int
	turn int
}

// NewDionysia makes the policy.
func NewDionysia(p placement.Policy) *Dionysia {
	return &Dionysia{policy: p, held: map[int]holding{}, dirty: map[int]struct{}{}, byName: map[string]int{}, reported: -1}
}

// Pick implements Policy.
func (p *Dionysia) Pick(now float64, f *Fleet, b *Broadcast, failover bool) (Ref, bool) {
	p.refresh(now, f)
	r := b.Request
	r.Failover = failover
	d, err := placement.Decide(p.snapshot, r)
	if err != nil {
		return Ref{}, false
	}
	w := p.byName[d.Worker]
	for i, dev := range f.Workers[w].Devices {
		if dev.ID == d.Device {
			return Ref{w, i}, true
		}
	}
	panic("a decision for no device")
}

// refresh brings the snapshot up to date, as the controller does: the reports
// twice a second, the ledgers whenever they have changed.
func (p *Dionysia) refresh(now float64, f *Fleet) {
	if p.snapshot == nil {
		p.snapshot = &placement.Snapshot{Policy: p.policy}
		p.standing = make([]uint64, len(f.Workers))
		p.ledgers = make([]map[string]placement.Load, len(f.Workers))
		for i, w := range f.Workers {
			p.ledgers[i] = map[string]placement.Load{}
			p.byName[w.Name] = i
			p.dirty[i] = struct{}{}
		}
	}
	p.ripen(now)
	if t := reportTime(now); t != p.reported {
		p.reported = t
		for i, w := range f.Workers {
			if w.measure(now) {
				p.dirty[i] = struct{}{}
			}
		}
	}
	// What can't be used at all is known at once: a start in the half second before
	// the report that says so, which would fail and be tried again, is not modelled.
	for i, w := range f.Workers {
		if is := w.standing(); is != p.standing[i] {
			p.standing[i] = is
			p.dirty[i] = struct{}{}
		}
	}
	for i := range p.dirty {
		w := f.Workers[i]
		p.snapshot.Put(placement.Worker{Report: w.report, Lost: !w.Up, Ledger: p.ledgers[i]})
	}
	clear(p.dirty)
}

// standing has a bit for the worker that is up and one for each device of it that
// can be used.
func (w *Worker) standing() uint64 {
	var s uint64
	if w.Up {
		s = 1
	}
	for i, d := range w.Devices {
		if d.Usable {
			s |= 2 << i
		}
	}
	return s
}

// measure writes into the report what is measured, and says whether that is
// another (by a thousandth of the device) than at the last time.
func (w *Worker) measure(now float64) (changed bool) {
	for _, d := range w.Devices {
		used := d.Meter.Measured(now)
		if math.Abs(used-float64(d.used)) > d.Budget/1000 {
			d.used, changed = int64(used), true
		}
	}
	return changed
}

// ripen makes reservations older than stream.RampHold show in the measurement
// alone.
func (p *Dionysia) ripen(now float64) {
	for len(p.young) > 0 && now-p.young[0].at >= stream.RampHold.Seconds() {
		a := p.young[0]
		p.young = p.young[1:]
		if h, ok := p.held[a.id]; ok && h.young && h.turn == a.turn {
			p.count(h, -1)
			h.young = false
			p.count(h, 1)
			p.held[a.id] = h
		}
	}
}

// count adds a holding to its worker's ledger, or takes it off.
func (p *Dionysia) count(h holding, sign int64) {
	for _, r := range h.reserved {
		l := p.ledgers[h.worker][r.Resource]
		l.Reserved += sign * r.Amount
		l.Streams += int(sign)
		if h.young {
			l.Young += sign * r.Amount
		}
		p.ledgers[h.worker][r.Resource] = l
	}
	p.dirty[h.worker] = struct{}{}
}

// Placed implements Policy.
func (p *Dionysia) Placed(now float64, f *Fleet, b *Broadcast, at Ref) {
	w := f.Workers[at.Worker]
	h := holding{worker: at.Worker, young: true, turn: p.held[b.ID].turn + 1,
		reserved: b.Asked[f.Device(at).Kind].Reserve(w.report, w.report.Devices[at.Device])}
	p.held[b.ID] = h
	p.count(h, 1)
	p.young = append(p.young, aging{now, b.ID, h.turn})
}

// Probed implements Policy: as the worker does, it changes the reservations to
// the source's price (store.Reprice), or goes to another device of the worker
// that has room for that, the cards first (store.MoveDevice).
func (p *Dionysia) Probed(now float64, f *Fleet, b *Broadcast, at Ref) (Ref, bool) {
	p.ripen(now)
	w := f.Workers[at.Worker]
	h := p.held[b.ID]
	p.count(h, -1)
	next := h
	next.reserved = b.Real[f.Device(at).Kind].Reserve(w.report, w.report.Devices[at.Device])
	if p.fits(w, h, next, false) {
		return at, p.take(b, next)
	}
	for i := len(w.Devices) - 1; i >= 0; i-- {
		other := Ref{at.Worker, i}
		if i == at.Device || !f.Able(other, b) {
			continue
		}
		next.reserved = b.Real[w.Devices[i].Kind].Reserve(w.report, w.report.Devices[i])
		if p.fits(w, holding{}, next, true) {
			return other, p.take(b, next)
		}
	}
	p.count(h, 1)
	return at, false
}

func (p *Dionysia) take(b *Broadcast, h holding) bool {
	p.held[b.ID] = h
	p.count(h, 1)
	return true
}

// fits says whether each resource of which more is asked has room; measured, also
// by what is measured.
func (p *Dionysia) fits(w *Worker, old, next holding, measured bool) bool {
	for _, r := range next.reserved {
		before := int64(0)
		for _, o := range old.reserved {
			if o.Resource == r.Resource {
				before = o.Amount
			}
		}
		l, known := w.report.Limit(r.Resource)
		if !known || r.Amount <= before {
			continue
		}
		if !measured {
			l.Used = nil
		}
		if p.ledgers[next.worker][r.Resource].Held(l.Used)+r.Amount > l.Limit {
			return false
		}
	}
	return true
}

// Left implements Policy.
func (p *Dionysia) Left(_ float64, _ *Fleet, b *Broadcast, _ Ref) {
	h := p.held[b.ID]
	p.count(h, -1)
	h.reserved, h.young = nil, false
	p.held[b.ID] = h
}
