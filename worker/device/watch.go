package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

const (
	pollEvery = 500 * time.Millisecond
	// openAgain is how long the library is left alone after a failure, and while a
	// card is missing; it doubles to openAgainMost.
	openAgain     = time.Second
	openAgainMost = 30 * time.Second
)

// sighting is what a watcher found out about a card.
type sighting struct {
	id, name, driver string
	state            capacity.GPUState
	gone             error // wraps errGone; state is then the zero value
}

// watcher follows the driver and its cards.
//
//	  ┌────────────── backoff ◀─────────────┐
//	  ▼                                     │ no library, no driver, …
//	open ── ok ──▶ one poller for each card ┤ count failed or changed
//	  ▲                                     │ a card is missing: after a backoff
//	  └──── close ◀── pollers have ended ◀──┘
//
// NVML sees a card again only after it was shut down and initialised. Any call may
// hang: then its goroutine waits, the others go on, and what it would have told
// grows old.
type watcher struct {
	driver driver
	log    hclog.Logger
	see    func(sighting) // called from many goroutines
	// status takes what Report.NVML says.
	status func(string)
}

func (w *watcher) run(ctx context.Context) {
	known := map[string]string{} // names of all cards ever seen, by id
	last, wait := "", openAgain
	for ctx.Err() == nil {
		healthy, err := w.session(ctx, known, wait, func() { last = w.say("ok", last) })
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			last = w.say(err.Error(), last)
			for id, name := range known {
				w.see(sighting{id: id, name: name, gone: gone(err)})
			}
			if !pause(ctx, wait) {
				return
			}
		}
		if wait = min(2*wait, openAgainMost); healthy {
			wait = openAgain
		}
	}
}

// say gives a new status out, once.
func (w *watcher) say(status, last string) string {
	if status != last {
		w.log.Info("NVML", "status", status)
		w.status(status)
	}
	return status
}

// session opens the driver and follows its cards, until something calls for doing
// that again: at once with an error, and after patience while a card is missing.
// It was healthy when all known cards were there for as long as patience, or one
// came.
func (w *watcher) session(ctx context.Context, known map[string]string, patience time.Duration, opened func()) (healthy bool, err error) {
	version, err := w.driver.open()
	if err != nil {
		return false, err
	}
	defer w.driver.close()
	n, err := w.driver.count()
	if err != nil {
		return false, err
	}
	opened()
	ctx, cancel := context.WithCancel(ctx)
	var pollers sync.WaitGroup
	defer pollers.Wait() // no call is under way when the driver is closed
	defer cancel()
	var lost failures
	here := map[string]bool{}
	for i := range n {
		c, err := w.driver.card(i)
		if err != nil {
			lost.set(fmt.Sprint(i), err)
			continue
		}
		here[c.id], known[c.id] = true, c.name
		pollers.Go(func() { w.poll(ctx, c, version, &lost) })
	}
	for id, name := range known {
		if !here[id] {
			lost.set(id, errGone)
			w.see(sighting{id: id, name: name, gone: fmt.Errorf("%w: the driver no longer lists it", errGone)})
		}
	}
	return w.follow(ctx, n, &lost, patience)
}

// follow returns when the driver is to be opened again.
func (w *watcher) follow(ctx context.Context, n int, lost *failures, patience time.Duration) (healthy bool, err error) {
	start, whole := time.Now(), time.Duration(0)
	for pause(ctx, pollEvery) {
		now, err := w.driver.count()
		if !lost.any() {
			whole = time.Since(start)
		}
		switch {
		case err != nil:
			return false, err
		case now != n:
			return true, nil
		case lost.any() && time.Since(start) >= patience:
			return whole >= patience, nil
		}
	}
	return true, nil
}

// poll follows one card until it is gone.
func (w *watcher) poll(ctx context.Context, c card, version string, lost *failures) {
	for {
		state, err := c.state()
		if ctx.Err() != nil {
			return // what it says may be that the driver has been closed
		}
		if err != nil {
			lost.set(c.id, err)
			w.see(sighting{id: c.id, name: c.name, driver: version, gone: err})
			return
		}
		if version != "" {
			state.Driver = &version
		}
		w.see(sighting{id: c.id, name: c.name, driver: version, state: state})
		if !pause(ctx, pollEvery) {
			return
		}
	}
}

// failures are the cards that do not answer.
type failures struct {
	mu  sync.Mutex
	err map[string]error
}

func (f *failures) set(card string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = map[string]error{}
	}
	f.err[card] = err
}

func (f *failures) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.err) > 0
}

// pause waits, and is false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// goneWords is why a card is not usable, without what all such errors begin with.
func goneWords(err error) string {
	if errors.Is(err, errMismatch) {
		return errMismatch.Error()
	}
	return err.Error()
}
