package fleet

import "slices"

// lose takes a worker, or a card of it, away. Its streams look for another device
// once the loss has been noticed, in the order of their ids.
func (m *sim) lose(o Outage) {
	w := m.Workers[o.Worker]
	var ids []int
	for i, d := range w.Devices {
		if o.Device > 0 && i != o.Device {
			continue
		}
		for id := range m.on[Ref{o.Worker, i}] {
			ids = append(ids, id)
		}
		if o.Device > 0 {
			d.Usable, w.report.Devices[i].Usable = false, false
		}
	}
	if o.Device == 0 {
		w.Up = false
	}
	slices.Sort(ids)
	for n, id := range ids {
		m.leave(id)
		st := &m.seats[id]
		m.result.Displaced++
		st.state, st.lostAt = displaced, m.now
		m.push(m.now+detection+float64(n)*betweenEach, evRetry, id, st.turn)
	}
	if o.Device == 0 {
		for _, d := range w.Devices {
			d.Meter.reset(m.now, d.True)
		}
	}
}

func (m *sim) restore(o Outage) {
	w := m.Workers[o.Worker]
	if o.Device == 0 {
		w.Up = true
		return
	}
	w.Devices[o.Device].Usable, w.report.Devices[o.Device].Usable = true, true
}

// retry looks for a device for a stream that has none.
func (m *sim) retry(id int) {
	st := &m.seats[id]
	if st.state != displaced {
		return
	}
	if m.place(id, true) {
		m.result.Replaced++
		m.result.replaceTimes = append(m.result.replaceTimes, m.now-st.lostAt)
		return
	}
	if m.now-st.lostAt < patience {
		m.push(m.now+retryEvery, evRetry, id, st.turn)
		return
	}
	st.state = gaveUp
	m.result.GaveUp++
}
