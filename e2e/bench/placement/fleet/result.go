package fleet

import (
	"math"
	"reflect"
	"slices"
)

// Result is what came of a day.
type Result struct {
	// Starts are the streams that came: each was Placed or Refused.
	Starts, Placed, Refused int
	// RefusedLater are those of the placed that were refused when their source was
	// known: it was dearer than the profile said, and there was no room for that.
	RefusedLater int
	// Displaced are the losses of a stream's device: each was Replaced, or the
	// stream given up, or ended by itself meanwhile.
	Displaced, Replaced, GaveUp, EndedMeanwhile int
	// Slowed are the streams that were driven below real time and lost more than a
	// segment (2 s) by it, and were not given up or refused later.
	Slowed int
	// Overload is the device-seconds for which a device had more to do than it
	// can; Overloaded how many devices that were.
	Overload   float64
	Overloaded int
	// ReplaceMean and ReplaceP95 are the seconds from a loss to the new placement.
	ReplaceMean, ReplaceP95 float64
	// Packing is the mean and Imbalance the standard deviation of the devices'
	// loads as shares of what they can do, over the peak hours.
	Packing, Imbalance float64
	// Peak is the most streams that ran at once in the peak hours.
	Peak int

	replaceTimes []float64
}

// NotServed counts the streams that were not served as asked: refused, given up
// after a loss, or driven below real time.
func (r Result) NotServed() int { return r.Refused + r.RefusedLater + r.GaveUp + r.Slowed }

// AllRefused counts the streams that got no place, at the start or later.
func (r Result) AllRefused() int { return r.Refused + r.RefusedLater + r.GaveUp }

// Equal compares what is told of two days.
func (r Result) Equal(o Result) bool {
	same := slices.Equal(r.replaceTimes, o.replaceTimes)
	r.replaceTimes, o.replaceTimes = nil, nil
	return same && reflect.DeepEqual(r, o)
}

// peak sums samples up.
type peak struct {
	samples         int
	mean, deviation float64
	most            int
}

// sample looks at the shares of all devices that can encode.
func (m *sim) sample() {
	var n, sum, squares float64
	streams := 0
	for _, w := range m.Workers {
		if !w.Up {
			continue
		}
		for _, d := range w.Devices {
			if !d.Usable {
				continue
			}
			share := d.Meter.Load / d.True
			n, sum, squares = n+1, sum+share, squares+share*share
			streams += d.Streams
		}
	}
	m.peak.most = max(m.peak.most, streams)
	if n > 0 {
		mean := sum / n
		m.peak.samples++
		m.peak.mean += mean
		m.peak.deviation += math.Sqrt(max(0, squares/n-mean*mean))
	}
}

// finish sums the day up.
func (m *sim) finish() Result {
	r := &m.result
	for _, w := range m.Workers {
		for _, d := range w.Devices {
			d.Meter.advance(m.now, d.True)
			if d.Meter.over > 0 {
				r.Overload += d.Meter.over
				r.Overloaded++
			}
		}
	}
	for id := range m.seats {
		st := &m.seats[id]
		if st.state == placed { // it runs past the day's end
			m.leave(id)
			st.state = finished
		}
		if st.state == finished && st.late > behind {
			r.Slowed++
		}
	}
	r.EndedMeanwhile = r.Displaced - r.Replaced - r.GaveUp
	if n := len(r.replaceTimes); n > 0 {
		for _, t := range r.replaceTimes {
			r.ReplaceMean += t / float64(n)
		}
		slices.Sort(r.replaceTimes)
		r.ReplaceP95 = r.replaceTimes[min(n-1, n*95/100)]
	}
	if n := float64(m.peak.samples); n > 0 {
		r.Packing, r.Imbalance = m.peak.mean/n, m.peak.deviation/n
	}
	r.Peak = m.peak.most
	return *r
}
