package placement

import "github.com/dionysia-dev/dionysia/services/capacity"

// Decide filters the devices and takes the best of those that fit. The same
// snapshot and request make the same decision, in whatever order the workers
// are. With no room it returns a *NoRoomError; rules that can't be read are
// stream.ErrInvalid.
func Decide(s *Snapshot, r Request) (Decision, error) {
	q, err := s.query(r)
	if err != nil {
		return Decision{}, err
	}
	return q.decide()
}

func (q *query) decide() (Decision, error) {
	if best, ok := q.best(); ok {
		return q.decision(best), nil
	}
	if q.r.Degrade {
		for p, dropped := range degraded(q.r.Profile) {
			q.price(p)
			if best, ok := q.best(); ok {
				d := q.decision(best)
				d.Dropped = dropped
				return d, nil
			}
		}
		q.price(q.r.Profile)
	}
	return Decision{}, q.refusal()
}

// decision proposes a device.
func (q *query) decision(f found) Decision {
	w := &q.s.Workers[f.host].Report
	dev := w.Devices[f.device]
	d := Decision{Worker: w.Worker, Boot: w.Boot, Device: dev.ID, Profile: q.profile, Score: f.score,
		Reserved: q.cost[kindOf(dev.Kind)].Reserve(*w, dev)}
	d.Limits = make([]capacity.Limit, len(d.Reserved))
	for i, res := range d.Reserved {
		r := roomOf(&q.s.Workers[f.host], res.Resource, q.s.Policy)
		d.Limits[i] = capacity.Limit{Limit: q.bound(&r), Used: r.used}
	}
	return d
}
