package placement

import "github.com/dionysia-dev/dionysia/services/stream"

// Load is what streams hold of one resource of a worker, summed from its ledger.
type Load struct {
	Reserved int64 `json:"reserved"`
	// Young is the part of Reserved that is younger than stream.RampHold, which
	// measurements do not show yet.
	Young   int64 `json:"young"`
	Streams int   `json:"streams"`
}

// Held is what counts as taken: max(reserved, used + young). Where used is
// unknown (nil) it is what is reserved.
func (l Load) Held(used *int64) int64 {
	if used == nil {
		return l.Reserved
	}
	return max(l.Reserved, *used+l.Young)
}

// Less is the load without one stream's reservation. used is adjusted with it: a
// stream that has ramped up takes its part of what is measured along, in
// proportion to the reservations that have, but no more than it has reserved; one
// that is young is not in the measurement yet.
func (l Load) Less(amount int64, young bool, used *int64) (Load, *int64) {
	amount = min(amount, l.Reserved)
	if amount <= 0 {
		return l, used
	}
	rest := Load{Reserved: l.Reserved - amount, Young: l.Young, Streams: max(0, l.Streams-1)}
	switch {
	case young:
		rest.Young = max(0, l.Young-amount)
	case used != nil:
		u := max(0, *used-int64(float64(amount)*l.shown(*used)))
		used = &u
	}
	rest.Young = min(rest.Young, rest.Reserved)
	return rest, used
}

// shown is how much of a ramped up reservation is in the measurement, 0 to 1.
func (l Load) shown(used int64) float64 {
	ripe := l.Reserved - l.Young
	if used >= ripe {
		return 1
	}
	return float64(used) / float64(ripe)
}

// plus is the load with one more stream's reservation, which is young.
func (l Load) plus(amount int64) Load {
	return Load{Reserved: l.Reserved + amount, Young: l.Young + amount, Streams: l.Streams + 1}
}

// amount is what a list of reservations holds of a resource.
func amount(list []stream.Reservation, resource string) int64 {
	var sum int64
	for _, r := range list {
		if r.Resource == resource {
			sum += r.Amount
		}
	}
	return sum
}
