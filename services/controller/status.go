package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	// statusEvery is how often what the runs report is read at most.
	statusEvery = time.Second
	// noRoomAfter is for how long a worker must have said that none of its devices
	// takes a source before the stream is placed again.
	noRoomAfter = 2 * time.Second
)

// status is what the run of a stream with a publisher reported last. Without Redis
// live, what is known stays.
func (c *Controller) status(ctx context.Context, s *snapshot, id string) (stream.RunStatus, bool) {
	if s.now.Sub(c.statusAt) >= statusEvery {
		c.statusAt = s.now
		list, err := c.store.Statuses(ctx, slices.Collect(maps.Keys(s.publishing)))
		if err != nil {
			c.log.Debug("reading what the runs report failed; trying again", "error", err)
		} else {
			c.statuses = list
		}
	}
	r, ok := c.statuses[id]
	return r, ok
}

// media is what is known of a publisher's source: what a worker has found of this
// very session.
func (c *Controller) media(ctx context.Context, s *snapshot, id string) *stream.SourceMedia {
	r, ok := c.status(ctx, s, id)
	pub, publishes := s.publishing[id]
	if !ok || !publishes || r.Session == "" || r.Session != pub.path.Session {
		return nil
	}
	return r.Media
}

// noRoom says whether the worker of a placement has said for a while that none of
// its devices takes what the source really costs.
func (c *Controller) noRoom(ctx context.Context, s *snapshot, st *streamSeen, p stream.Placement) bool {
	r, ok := c.status(ctx, s, p.Stream)
	if !ok || r.Epoch != p.Epoch || r.State != stream.RunRefused ||
		(r.Refused != stream.RefusedNoRoom && r.Refused != stream.RefusedDevice) {
		st.noRoomSince = time.Time{}
		return false
	}
	if st.noRoomSince.IsZero() {
		st.noRoomSince = s.now
	}
	return !s.settling && !s.holding && s.now.Sub(st.noRoomSince) >= noRoomAfter
}

// covers says whether a placement holds already what the source costs on its
// device: that its worker refuses it all the same has another reason, which
// placing it there again would not mend.
func (s *snapshot) covers(p stream.Placement, media *stream.SourceMedia) bool {
	d, ok := s.workers[p.Worker].report.Device(p.Device)
	return !ok || p.Price >= placement.PriceFor(d.Kind, p.Profile, media).Px
}

// giveUp ends a placement whose worker has no room for the source. The broadcast
// goes on and waits.
func (c *Controller) giveUp(ctx context.Context, w *waiter) error {
	own := c.own(w.old)
	if err := c.store.Release(ctx, w.conf.ID, w.old.Epoch); err != nil {
		return fmt.Errorf("ending the placement of %s, which has no room: %w", w.conf.ID, err)
	}
	c.view.Return(own)
	c.event(ctx, w.conf.ID, "warn", "placement.released", fmt.Sprintf("worker %s has no room for what the source costs; the reservation was returned", w.old.Worker))
	return nil
}
