package discovery

import "time"

// Questions that nobody waits for are put one after the other, with pauses that
// leave Consul at rest four fifths of the time, as far as one router goes: what a
// question costs Consul's servers grows with the number of origins (it looks at
// all of them for the one with the tag; some 10 ms of a CPU with 5,000), and every
// router asks for every origin that it uses. Up to some 200 origins are asked for
// each second, 5,000 every few minutes.
const (
	// rest is the pause, in answer times.
	rest = 4
	// leastRest and mostRest bound it: while DNS is away an answer time is a
	// time-out.
	leastRest = 5 * time.Millisecond
	mostRest  = 50 * time.Millisecond
)

// turns are the origins to be asked for, in order; Resolver.mu guards it.
type turns struct {
	ids  []string
	runs bool          // a goroutine takes from ids
	took time.Duration // a question's time, smoothed
}

// note takes down how long a question took.
func (t *turns) note(took time.Duration) { t.took += (took - t.took) / 4 }

// pause is the time between two questions.
func (t *turns) pause() time.Duration { return min(max(rest*t.took, leastRest), mostRest) }

// askInTurn has a question put for id after those that wait already; r.mu is held.
func (r *Resolver) askInTurn(id string, k *known) {
	if k.queued || k.pending != nil {
		return
	}
	k.queued = true
	r.turns.ids = append(r.turns.ids, id)
	if !r.turns.runs {
		r.turns.runs = true
		go r.takeTurns()
	}
}

// takeTurns puts the questions that wait, until there are none.
func (r *Resolver) takeTurns() {
	for {
		pause := r.takeTurn()
		if pause == 0 {
			return
		}
		time.Sleep(pause)
	}
}

// takeTurn puts the first of the questions that is still worth it and returns how
// long to pause then; 0 if there was none, and takeTurns has ended.
func (r *Resolver) takeTurn() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for len(r.turns.ids) > 0 {
		id := r.turns.ids[0]
		r.turns.ids = r.turns.ids[1:]
		k := r.origins[id]
		if k == nil {
			continue // forgotten meanwhile
		}
		k.queued = false
		if k.pending == nil && !now.Before(k.expires) {
			r.ask(id, k, now)
			return r.turns.pause()
		}
	}
	r.turns.ids, r.turns.runs = nil, false
	return 0
}
