package discovery

import (
	"testing"
	"time"
)

func TestPause(t *testing.T) {
	for _, c := range []struct {
		name string
		took []time.Duration
		want time.Duration
	}{
		{"nothing asked yet", nil, leastRest},
		{"quick answers", []time.Duration{100 * time.Microsecond, 100 * time.Microsecond}, leastRest},
		{"one slow answer weighs a quarter", []time.Duration{16 * time.Millisecond}, 16 * time.Millisecond},
		{"DNS is away", []time.Duration{2 * time.Second, 2 * time.Second}, mostRest},
	} {
		var turns turns
		for _, d := range c.took {
			turns.note(d)
		}
		if got := turns.pause(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
