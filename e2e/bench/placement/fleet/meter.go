package fleet

import "math"

const (
	// measureLag is the time constant with which a measurement follows the truth,
	// in seconds: utilisation is averaged over a few seconds wherever it is read.
	measureLag = 4.0
	// reportEvery is how often a worker reports, in seconds.
	reportEvery = 0.5
)

// Meter is the true load of a device and what is measured of it. Both are in
// px/s of the device.
type Meter struct {
	Load float64 // the truth

	at       float64 // when the rest was brought up to date
	measured float64
	// Late is for how long in all the device's streams would have fallen behind,
	// in seconds: half as fast as real time for 2 s is 1 s.
	late float64
	// over is how long the load was above what the device can do, in seconds.
	over float64
}

// advance brings the meter to a time; the load has been the same since the last.
func (m *Meter) advance(now, can float64) {
	dt := now - m.at
	if dt <= 0 {
		return
	}
	if m.Load > can {
		m.over += dt
		m.late += dt * (1 - can/m.Load)
	}
	m.measured = m.follow(dt)
	m.at = now
}

func (m *Meter) follow(dt float64) float64 {
	return m.Load + (m.measured-m.Load)*math.Exp(-dt/measureLag)
}

// add changes the load.
func (m *Meter) add(now, can, px float64) {
	m.advance(now, can)
	m.Load = max(0, m.Load+px)
	if m.Load < 1 { // what rounding leaves
		m.Load = 0
	}
}

// reset is a device that starts again.
func (m *Meter) reset(now, can float64) {
	m.advance(now, can)
	m.Load, m.measured = 0, 0
}

// Measured is what the last report before now says.
func (m *Meter) Measured(now float64) float64 {
	return m.follow(max(0, reportTime(now)-m.at))
}

func reportTime(now float64) float64 { return math.Floor(now/reportEvery) * reportEvery }
