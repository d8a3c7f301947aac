package ingest

import (
	"context"
	"errors"
	"sync"
	"time"
)

// health remembers when something last worked.
type health struct {
	mu      sync.Mutex
	at      time.Time
	failing bool
	err     string
}

// healthFor is how long a success counts: a few turns of either loop.
const healthFor = 5 * time.Second

// set notes the outcome and reports whether it differs from the one before.
func (h *health) set(err error, now time.Time) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = h.failing != (err != nil)
	h.failing = err != nil
	if err != nil {
		h.err = err.Error()
	} else {
		h.at = now
	}
	return changed
}

func (h *health) ok(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.at.IsZero() && now.Sub(h.at) < healthFor
}

func (h *health) why() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == "" {
		return "not reached yet"
	}
	return h.err
}

// pollLoop lists mediamtx's paths, every Config.Poll and at each hook.
func (a *Agent) pollLoop(ctx context.Context) {
	t := time.NewTicker(a.cfg.Poll)
	defer t.Stop()
	start := time.Now()
	for {
		err := a.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		starting := err != nil && time.Since(start) < healthFor // mediamtx may start after its agent
		if !starting && a.mtxHealth.set(err, time.Now()) {
			if err != nil {
				a.log.Warn("mediamtx does not list its paths", "error", err)
			} else {
				a.log.Info("mediamtx lists its paths again")
			}
		}
		if err != nil {
			a.metrics.pollFailures.Inc()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-a.pollNow:
		}
	}
}

func (a *Agent) poll(ctx context.Context) error {
	list, err := a.mtx.paths(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, src := range a.book.fresh(list) {
		conn, remote, err := a.mtx.conn(ctx, src)
		if err != nil {
			a.log.Debug("describing a publisher", "source", src.ID, "error", err) // it may have left already
		}
		for i := range list {
			if list[i].Source == src {
				list[i].Conn, list[i].Remote = conn, remote
			}
		}
	}
	for _, r := range a.unanswered.due(now) {
		a.record(r, verdict{reason: reasonNoKey, detail: "no stream key"})
	}
	c := a.book.listed(list, now)
	a.grants.touch(list, now)
	a.metrics.setSessions(list)
	for protocol, n := range c.Bytes {
		a.metrics.bytes.WithLabelValues(protocol).Add(float64(n))
	}
	for _, s := range c.Started {
		a.log.Info("publishing", "stream", s.Stream, "protocol", s.Protocol, "remote", s.Remote, "conn", s.Conn,
			"tracks", s.Tracks)
	}
	for _, s := range c.Ended {
		a.log.Info("no longer publishing", "stream", s.Stream, "protocol", s.Protocol, "conn", s.Conn, "bytes", s.Bytes)
		a.releaseClaim(ctx, *s)
	}
	for _, s := range c.Kick {
		a.kick(ctx, *s, "another publisher took over")
	}
	if c.any() {
		nudge(a.reportNow)
	}
	return nil
}

// releaseClaim gives the claim of a publisher that left back, in the
// background and once: claims expire by themselves.
func (a *Agent) releaseClaim(ctx context.Context, s session) {
	a.wg.Go(func() {
		err := a.api.release(ctx, releaseRequest{Stream: s.Stream, Node: a.cfg.Node, Conn: s.Conn})
		if err != nil {
			a.log.Debug("release", "error", err)
		}
	})
}

// reportLoop tells the api everything, every Config.Report and at each change.
func (a *Agent) reportLoop(ctx context.Context) {
	t := time.NewTicker(a.cfg.Report)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-a.reportNow:
		}
		err := a.sendReport(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errBlind) {
			continue // pollLoop has said it
		}
		if a.apiHealth.set(err, time.Now()) {
			if err != nil {
				a.log.Warn("the api does not take reports", "error", err)
			} else {
				a.log.Info("the api takes reports again")
			}
		}
		if err != nil {
			a.metrics.reportFailures.Inc()
		}
	}
}

// reportStale is how old a list of paths may be to be reported: an agent that
// can't see mediamtx says nothing, rather than that nobody publishes or that
// everybody still does.
const reportStale = 5 * time.Second

var errBlind = errors.New("mediamtx's paths are not known")

func (a *Agent) sendReport(ctx context.Context) error {
	live, polled := a.book.sessions()
	now := time.Now()
	if now.Sub(polled) > reportStale {
		return errBlind
	}
	r := report{
		Node: a.cfg.Node, Boot: a.boot, RTMP: a.cfg.RTMPAddr, RTSP: a.cfg.RTSPAddr,
		Time: now.UTC(), Paths: make([]reportPath, 0, len(live)),
	}
	for i := range live {
		s := &live[i]
		p := reportPath{
			Stream: s.Stream, Session: s.Conn, Protocol: s.Protocol, Remote: s.Remote,
			Ready: s.Ready, Tracks: s.Tracks, BytesReceived: s.Bytes,
		}
		if p.Tracks == nil {
			p.Tracks = []string{}
		}
		if !s.ReadyAt.IsZero() {
			p.ReadySince = &s.ReadyAt
		}
		r.Paths = append(r.Paths, p)
	}
	kick, err := a.api.report(ctx, r)
	if err != nil {
		return err
	}
	for _, id := range kick {
		a.grants.drop(id)
		if s, ok := a.book.session(id); ok {
			a.kick(ctx, s, "the api wants it disconnected")
		}
	}
	return nil
}

func (a *Agent) kick(ctx context.Context, s session, why string) {
	a.metrics.kicks.Inc()
	a.log.Info("disconnecting a publisher", "stream", s.Stream, "protocol", s.Protocol, "conn", s.Conn, "why", why)
	if err := a.mtx.kick(ctx, s.Source); err != nil {
		a.log.Warn("disconnecting a publisher", "stream", s.Stream, "error", err)
		return
	}
	nudge(a.pollNow)
}
