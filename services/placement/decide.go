package placement

import (
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

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
	key, known := q.refusalKey(), q.r.Own.Worker == ""
	if no, ok := q.v.refused[key]; ok && known {
		again := *no
		again.Stream, again.r = q.r.Stream, q.r
		return Decision{}, &again
	}
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
	no := q.refusal()
	if known {
		q.v.refused[key] = no
	}
	return Decision{}, no
}

// refusalKey is all that a refusal depends on but the snapshot. A queue often
// holds many streams alike: what was refused one is refused the next without
// looking, until a device may have got room (see view.refused).
type refusalKey struct {
	whole, least           [kinds]Cost
	codecs                 codecs
	require, avoid, behind string
	failover, degrade      bool
}

func (q *query) refusalKey() refusalKey {
	k := refusalKey{whole: q.cost, codecs: q.codecs, failover: q.r.Failover, degrade: q.r.Degrade, avoid: strings.Join(q.r.Avoid, " ")}
	if q.r.Degrade {
		k.least = costs(smallest(q.r.Profile), q.r.Media)
	}
	for _, r := range q.r.Require {
		k.require += string(r) + " "
	}
	if q.behind.host >= 0 {
		k.behind = q.r.Behind.Stream + " " + q.r.Behind.Worker + "/" + q.r.Behind.Device
	}
	return k
}

// decision proposes a device.
func (q *query) decision(f found) Decision {
	w := &q.s.Workers[f.host].Report
	dev := w.Devices[f.device]
	d := Decision{Worker: w.Worker, Boot: w.Boot, Device: dev.ID, Profile: q.profile, Score: f.score,
		Reserved: q.cost[kindOf(dev.Kind)].Reserve(*w, dev)}
	d.Limits = make([]capacity.Limit, len(d.Reserved))
	for i, res := range d.Reserved {
		a := q.account(f.host, res.Resource)
		d.Limits[i] = capacity.Limit{Limit: q.bound(&a.room), Used: a.used}
	}
	return d
}
