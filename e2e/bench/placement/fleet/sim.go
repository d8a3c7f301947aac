package fleet

import (
	"container/heap"
	"math/rand/v2"
)

// Policy says where streams go. It is told of everything that it may know.
type Policy interface {
	// Pick chooses a device for a stream; failover is set when it lost its former
	// one. It must be able to take the stream (Fleet.Able).
	Pick(now float64, f *Fleet, b *Broadcast, failover bool) (Ref, bool)
	// Placed: the stream is on the device from now on.
	Placed(now float64, f *Fleet, b *Broadcast, at Ref)
	// Probed: the stream's source is known and its run begins, where it is or on
	// another device of its worker. False is for a stream that is refused, because
	// it is dearer than it was thought and there is no room for that.
	Probed(now float64, f *Fleet, b *Broadcast, at Ref) (Ref, bool)
	// Left: the stream is on the device no more.
	Left(now float64, f *Fleet, b *Broadcast, at Ref)
}

// Timing that is the same for every policy, in seconds.
const (
	detection   = 1.5  // from a loss to the first stream being placed anew
	betweenEach = 0.02 // from one stream's placement to the next after a loss
	retryEvery  = 1.0  // for a stream that lost its device and finds none
	patience    = 60.0 // after which such a stream is given up
	// behind is how late a stream may get in all before it counts as driven below
	// real time: one segment.
	behind = 2.0
)

// Fleet is the state that policies look at.
type Fleet struct {
	Workers []*Worker
}

// Device returns a device.
func (f *Fleet) Device(r Ref) *Device { return f.Workers[r.Worker].Devices[r.Device] }

// Able says whether a device can take a stream at all: it is there, has the codec,
// and its system has encoder sessions left. Whether it is fast enough is the
// policy's to judge.
func (f *Fleet) Able(r Ref, b *Broadcast) bool {
	w := f.Workers[r.Worker]
	d := w.Devices[r.Device]
	if !w.Up || !d.Usable || (b.GPUOnly && !d.HEVC) {
		return false
	}
	return !d.Limited || w.SessionCap == 0 || w.Sessions+b.Asked[d.Kind].Sessions <= w.SessionCap
}

// state is where a broadcast stands.
type state uint8

const (
	unborn state = iota
	placed
	displaced // lost its device; looks for another
	refused   // at its start, or when it turned out dearer than its profile
	gaveUp    // lost its device and found none
	finished
)

// seat is what the simulation knows of a broadcast.
type seat struct {
	state    state
	at       Ref
	turn     int     // counts its placements, so that an event of a former one is known
	began    bool    // its run has
	joined   float64 // what its device had lost when it came, and its host
	hostLate float64
	late     float64 // what it lost in all, seconds
	lostAt   float64
}

type kindOfEvent uint8

const (
	evStart kindOfEvent = iota
	evProbe
	evStop
	evLose
	evReturn
	evRetry
	evSample
)

type event struct {
	at   float64
	seq  int // what happens at one time happens in this order
	kind kindOfEvent
	id   int // of the broadcast or the outage
	turn int
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || (e[i].at == e[j].at && e[i].seq < e[j].seq)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

// Push implements heap.Interface.
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop implements heap.Interface.
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

type sim struct {
	Fleet
	s      *Scenario
	p      Policy
	seats  []seat
	on     map[Ref]map[int]struct{} // broadcasts by device
	queue  events
	seq    int
	now    float64
	result Result
	peak   peak
}

// Run simulates a scenario under a policy. The scenario is not changed.
func Run(s *Scenario, p Policy) Result {
	m := &sim{s: s, p: p, seats: make([]seat, len(s.Broadcasts)), on: map[Ref]map[int]struct{}{}}
	m.Workers = build(s.Machines, rand.New(rand.NewPCG(s.Seed, 2)))
	for i := range s.Broadcasts {
		m.push(s.Broadcasts[i].Start, evStart, i, 0)
	}
	for i := range s.Outages {
		m.push(s.Outages[i].At, evLose, i, 0)
		m.push(s.Outages[i].Until, evReturn, i, 0)
	}
	for t := s.PeakFrom; t < s.PeakTo; t += 60 {
		m.push(t, evSample, 0, 0)
	}
	for len(m.queue) > 0 {
		e := heap.Pop(&m.queue).(event)
		if e.at > s.Length {
			break
		}
		m.now = e.at
		m.handle(e)
	}
	m.now = s.Length
	return m.finish()
}

func (m *sim) push(at float64, k kindOfEvent, id, turn int) {
	m.seq++
	heap.Push(&m.queue, event{at, m.seq, k, id, turn})
}

func (m *sim) handle(e event) {
	switch e.kind {
	case evStart:
		m.start(e.id)
	case evProbe:
		m.probe(e.id, e.turn)
	case evStop:
		m.stop(e.id)
	case evLose:
		m.lose(m.s.Outages[e.id])
	case evReturn:
		m.restore(m.s.Outages[e.id])
	case evRetry:
		m.retry(e.id)
	case evSample:
		m.sample()
	}
}

func (m *sim) start(id int) {
	b := &m.s.Broadcasts[id]
	m.result.Starts++
	if !m.place(id, false) {
		m.seats[id].state = refused
		m.result.Refused++
		return
	}
	m.result.Placed++
	m.push(b.Start+b.Length, evStop, id, 0)
}

// place asks the policy and puts the stream there.
func (m *sim) place(id int, failover bool) bool {
	b, st := &m.s.Broadcasts[id], &m.seats[id]
	at, ok := m.p.Pick(m.now, &m.Fleet, b, failover)
	if !ok {
		return false
	}
	if !m.Able(at, b) {
		panic("a policy chose a device that can't take the stream")
	}
	st.state, st.began, st.turn = placed, false, st.turn+1
	m.sit(id, at)
	m.p.Placed(m.now, &m.Fleet, b, at)
	m.push(m.now+b.Probe, evProbe, id, st.turn)
	return true
}

// sit puts a stream on a device.
func (m *sim) sit(id int, at Ref) {
	st := &m.seats[id]
	st.at = at
	m.Device(at).Streams++
	m.sessions(id, 1)
	if m.on[at] == nil {
		m.on[at] = map[int]struct{}{}
	}
	m.on[at][id] = struct{}{}
}

// sessions counts a stream's encoder sessions, when its device's are limited: its
// profile's until its source is known.
func (m *sim) sessions(id, sign int) {
	b, st := &m.s.Broadcasts[id], &m.seats[id]
	d := m.Device(st.at)
	switch {
	case !d.Limited:
	case st.began:
		m.Workers[st.at.Worker].Sessions += sign * b.Real[d.Kind].Sessions
	default:
		m.Workers[st.at.Worker].Sessions += sign * b.Asked[d.Kind].Sessions
	}
}

// probe begins the stream's run, at what it really costs.
func (m *sim) probe(id, turn int) {
	b, st := &m.s.Broadcasts[id], &m.seats[id]
	if st.state != placed || st.turn != turn {
		return
	}
	at, ok := m.p.Probed(m.now, &m.Fleet, b, st.at)
	if !ok {
		m.leave(id)
		st.state = refused
		m.result.RefusedLater++
		return
	}
	m.rise(id)
	st.began = true
	m.sit(id, at)
	m.load(id, 1)
	st.joined, st.hostLate = m.Device(at).Meter.late, m.Workers[at.Worker].CPU().Meter.late
}

// rise takes a stream off its seat.
func (m *sim) rise(id int) {
	st := &m.seats[id]
	m.sessions(id, -1)
	m.Device(st.at).Streams--
	delete(m.on[st.at], id)
}

// load adds a stream's true cost to its device and host, or takes it off.
func (m *sim) load(id int, sign float64) {
	at := m.seats[id].at
	d, host := m.Device(at), m.Workers[at.Worker].CPU()
	t := m.s.Broadcasts[id].True[d.Kind]
	d.Meter.add(m.now, d.True, sign*t.Px)
	host.Meter.add(m.now, host.True, sign*t.HostPx)
}

// leave takes the stream off its device.
func (m *sim) leave(id int) {
	b, st := &m.s.Broadcasts[id], &m.seats[id]
	d, w := m.Device(st.at), m.Workers[st.at.Worker]
	if st.began {
		m.load(id, -1)
		st.late += d.Meter.late - st.joined
		if d != w.CPU() {
			st.late += w.CPU().Meter.late - st.hostLate
		}
	}
	m.rise(id)
	m.p.Left(m.now, &m.Fleet, b, st.at)
}

func (m *sim) stop(id int) {
	st := &m.seats[id]
	switch st.state {
	case placed:
		m.leave(id)
		st.state = finished
	case displaced: // it ended before it found a device again
		st.state = finished
	}
}
