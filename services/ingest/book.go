package ingest

import (
	"sync"
	"time"
)

// book is what the agent knows of who publishes what. It does no I/O and reads
// no clock.
//
// A stream's publisher goes through
//
//	granted (auth said yes) ──▶ live (its path is listed) ──▶ gone
//
// and is in the way of another one while it is granted for less than hold, or
// live and not silent. Silence is measured between polls that succeeded, so a
// mediamtx that does not answer makes nobody silent.
type book struct {
	silence time.Duration

	mu       sync.Mutex
	lastPoll time.Time
	live     map[string]*session // by stream
	granted  map[string]grant    // by stream
	// revoked connections lost their grant to another one before they were
	// live; they are kicked if they turn up.
	revoked map[string]time.Time
	// left is when a stream's last publisher here went away.
	left map[string]time.Time
}

// session is one live publish.
type session struct {
	Stream   string
	Source   source // mediamtx's name for it
	Conn     string // the id under which auth was asked; Source.ID but for RTSP
	Protocol string
	Remote   string
	Ready    bool
	ReadyAt  time.Time
	Tracks   []string
	Bytes    uint64
	lastData time.Time
}

// grant is an auth call that was answered with yes.
type grant struct {
	Stream   string
	Conn     string
	Protocol string
	Remote   string
	mac      [32]byte // of the key, see grants
	at       time.Time
}

// hold is how long a grant keeps others out before its path is listed. WebRTC
// asks before ICE and before it knows the tracks.
func (g grant) hold(silence time.Duration) time.Duration {
	if g.Protocol == "webrtc" {
		return 2*silence + time.Second
	}
	return silence
}

// forgetLeft is past the time for which the api keeps the claim of a publisher
// that is no longer reported.
const forgetLeft = 15 * time.Second

// forgetGrant is past mediamtx's own patience with a publisher that sends
// nothing (readTimeout).
const forgetGrant = 30 * time.Second

func newBook(silence time.Duration) *book {
	return &book{
		silence: silence,
		live:    map[string]*session{},
		granted: map[string]grant{},
		revoked: map[string]time.Time{},
		left:    map[string]time.Time{},
	}
}

// way says what a publisher finds on its stream.
type way struct {
	// Busy names the one who is sending, or just about to.
	Busy *session
	// Silent is the one that it would take over from.
	Silent *session
	// Left is set when the stream's last publisher here has just gone.
	Left bool
}

// takeover reports whether a claim that this node holds on the stream may be
// replaced. Of another node's, only the api knows.
func (w way) takeover() bool { return w.Busy == nil && (w.Silent != nil || w.Left) }

// look says what a publisher with connection conn finds on the stream.
func (b *book) look(stream, conn string, now time.Time) way {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.left[stream]
	w := way{Left: ok && now.Sub(at) < forgetLeft}
	if g, ok := b.granted[stream]; ok && g.Conn != conn {
		s := &session{Stream: stream, Source: sourceOf(g.Protocol, g.Conn), Conn: g.Conn, Protocol: g.Protocol, Remote: g.Remote}
		if now.Sub(g.at) < g.hold(b.silence) {
			w.Busy = s
			return w
		}
		w.Silent = s
	}
	if s, ok := b.live[stream]; ok && s.Conn != conn {
		c := *s
		if b.lastPoll.Sub(s.lastData) < b.silence {
			w.Busy, w.Silent = &c, nil
			return w
		}
		w.Silent = &c
	}
	return w
}

// grant records that conn may publish. Whoever held the stream before and is
// not live yet is revoked.
func (b *book) grant(g grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.granted[g.Stream]; ok && old.Conn != g.Conn {
		b.revoked[old.Conn] = g.at
	}
	b.granted[g.Stream] = g
	delete(b.revoked, g.Conn)
}

// gone forgets a source that is known to have left, from a not-ready hook or
// because mediamtx no longer knows its connection.
func (b *book) gone(stream, sourceID string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.live[stream]; ok && s.Source.ID == sourceID {
		delete(b.live, stream)
		b.left[stream] = now
	}
	if g, ok := b.granted[stream]; ok && g.Conn == sourceID {
		delete(b.granted, stream)
		b.left[stream] = now
	}
}

// change is what a poll brought.
type change struct {
	Started []*session
	Ended   []*session
	Kick    []*session        // revoked ones that turned up
	Bytes   map[string]uint64 // received since the last poll, by protocol
}

func (c change) any() bool { return len(c.Started)+len(c.Ended) > 0 }

// fresh returns the sources in the list that the book does not know yet.
func (b *book) fresh(list []session) []source {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []source
	for i := range list {
		if s, ok := b.live[list[i].Stream]; !ok || s.Source != list[i].Source {
			out = append(out, list[i].Source)
		}
	}
	return out
}

// listed takes over the state that mediamtx listed.
func (b *book) listed(list []session, now time.Time) change {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := change{Bytes: map[string]uint64{}}
	seen := map[string]bool{}
	for i := range list {
		n := list[i]
		seen[n.Stream] = true
		old, ok := b.live[n.Stream]
		if ok && old.Source == n.Source {
			if n.Bytes > old.Bytes {
				c.Bytes[old.Protocol] += n.Bytes - old.Bytes
				old.lastData = now
			}
			old.Bytes = n.Bytes
			if old.Ready != n.Ready || len(old.Tracks) != len(n.Tracks) {
				c.Started = append(c.Started, old)
			}
			old.Ready, old.ReadyAt, old.Tracks = n.Ready, n.ReadyAt, n.Tracks
			continue
		}
		if ok {
			c.Ended = append(c.Ended, old)
		}
		n.lastData = now
		c.Bytes[n.Protocol] += n.Bytes
		if g, ok := b.granted[n.Stream]; ok && g.Conn == n.Conn {
			if n.Remote == "" {
				n.Remote = g.Remote
			}
			delete(b.granted, n.Stream)
		}
		if _, ok := b.revoked[n.Conn]; ok {
			c.Kick = append(c.Kick, &n)
		}
		b.live[n.Stream] = &n
		c.Started = append(c.Started, &n)
	}
	for stream, s := range b.live {
		if !seen[stream] {
			c.Ended = append(c.Ended, s)
			delete(b.live, stream)
			b.left[stream] = now
		}
	}
	for stream, g := range b.granted {
		if now.Sub(g.at) > forgetGrant {
			delete(b.granted, stream)
		}
	}
	for stream, at := range b.left {
		if now.Sub(at) > forgetLeft {
			delete(b.left, stream)
		}
	}
	for conn, at := range b.revoked {
		if now.Sub(at) > forgetGrant {
			delete(b.revoked, conn)
		}
	}
	b.lastPoll = now
	return c
}

// sessions returns a copy of the live ones and when they were last listed.
func (b *book) sessions() ([]session, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]session, 0, len(b.live))
	for _, s := range b.live {
		out = append(out, *s)
	}
	return out, b.lastPoll
}

// session returns the live publish of a stream.
func (b *book) session(stream string) (session, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.live[stream]; ok {
		return *s, true
	}
	return session{}, false
}
