package ingest

import (
	"sync"
	"time"
)

// maxQuiet bounds quiet's memory; past it everything is said.
const maxQuiet = 4096

// quiet keeps an encoder that retries for ever from filling the log: the same
// thing is said once per period.
type quiet struct {
	period time.Duration

	mu   sync.Mutex
	said map[string]time.Time
}

func newQuiet(period time.Duration) *quiet {
	return &quiet{period: period, said: map[string]time.Time{}}
}

// first reports whether what was not said within the period, and notes it.
func (q *quiet) first(what string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, ok := q.said[what]; ok && now.Sub(at) < q.period {
		return false
	}
	if len(q.said) >= maxQuiet {
		for k, at := range q.said {
			if now.Sub(at) >= q.period {
				delete(q.said, k)
			}
		}
		if len(q.said) >= maxQuiet {
			return true
		}
	}
	q.said[what] = now
	return true
}
