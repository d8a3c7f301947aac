package ingest

import (
	"sync"
	"time"
)

// challengePatience is how long an RTSP client has to answer 401 with
// credentials before the lack of them counts as a refusal.
const challengePatience = 5 * time.Second

// maxChallenges bounds the memory; past it the lack is not recorded.
const maxChallenges = 1024

// challenges are the publishers that were asked for credentials. RTSP clients
// that have some in their URL always try without them first, so the first try
// is no refusal; one that is left at that is.
type challenges struct {
	mu sync.Mutex
	m  map[string]challenge
}

type challenge struct {
	req authRequest
	at  time.Time
}

func newChallenges() *challenges { return &challenges{m: map[string]challenge{}} }

func challengeKey(r authRequest) string { return r.Protocol + "\x00" + r.IP + "\x00" + r.Path }

func (c *challenges) asked(r authRequest, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) < maxChallenges {
		c.m[challengeKey(r)] = challenge{r, now}
	}
}

// answered forgets the challenge that r answers, rightly or not.
func (c *challenges) answered(r authRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, challengeKey(r))
}

// due returns, and forgets, those that were left unanswered.
func (c *challenges) due(now time.Time) []authRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []authRequest
	for k, ch := range c.m {
		if now.Sub(ch.at) >= challengePatience {
			out = append(out, ch.req)
			delete(c.m, k)
		}
	}
	return out
}
