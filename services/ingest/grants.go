package ingest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"
)

// maxGrants bounds the cache; the one that was used longest ago goes first.
const maxGrants = 10_000

// grants remembers which keys the api accepted, so that a publisher that
// returns while the api is away is let in. Keys are kept only as a MAC under a
// key that lives and dies with this process.
type grants struct {
	ttl    time.Duration
	macKey []byte

	mu sync.Mutex
	m  map[string]kept // by stream; one key each
}

type kept struct {
	mac [32]byte
	at  time.Time
}

func newGrants(ttl time.Duration) *grants {
	k := make([]byte, 32)
	_, _ = rand.Read(k) // never fails, see crypto/rand
	return &grants{ttl: ttl, macKey: k, m: map[string]kept{}}
}

func (g *grants) mac(stream, key string) (out [32]byte) {
	h := hmac.New(sha256.New, g.macKey)
	h.Write([]byte(stream))
	h.Write([]byte{0})
	h.Write([]byte(key))
	copy(out[:], h.Sum(nil))
	return out
}

// keep records that the api accepted the key.
func (g *grants) keep(stream string, mac [32]byte, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.m[stream]; !ok && len(g.m) >= maxGrants {
		oldest, at := "", now
		for s, k := range g.m {
			if k.at.Before(at) || oldest == "" {
				oldest, at = s, k.at
			}
		}
		delete(g.m, oldest)
	}
	g.m[stream] = kept{mac: mac, at: now}
}

// touch renews the grants of streams that are being published: their
// publishers may return for ttl after they were last seen.
func (g *grants) touch(live []session, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range live {
		if k, ok := g.m[live[i].Stream]; ok {
			k.at = now
			g.m[live[i].Stream] = k
		}
	}
	for s, k := range g.m {
		if now.Sub(k.at) > g.ttl {
			delete(g.m, s)
		}
	}
}

// has reports whether the key was accepted and its publisher seen within ttl.
func (g *grants) has(stream string, mac [32]byte, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.m[stream]
	return ok && hmac.Equal(k.mac[:], mac[:]) && now.Sub(k.at) <= g.ttl
}

// forget removes the stream's grant, if it is for this key: the api refused it.
func (g *grants) forget(stream string, mac [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k, ok := g.m[stream]; ok && hmac.Equal(k.mac[:], mac[:]) {
		delete(g.m, stream)
	}
}

// drop removes the stream's grant whatever its key: the stream was disabled or
// deleted.
func (g *grants) drop(stream string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, stream)
}
