package main

import (
	"bufio"
	"strconv"
	"strings"
)

// counters adds up counters of which any may vanish, or begin anew at 0, between
// two looks, as Consul's do when nothing has touched them for a minute.
type counters struct {
	last, sum map[string]float64
}

func newCounters() *counters { return &counters{sum: map[string]float64{}} }

// look takes the counters as they are now; the first look is where counting
// begins.
func (c *counters) look(now map[string]float64) {
	if c.last != nil {
		for name, n := range now {
			before := c.last[name]
			if n < before {
				before = 0
			}
			c.sum[name] += n - before
		}
	}
	c.last = now
}

// total is the sum of all counters' growth.
func (c *counters) total() float64 {
	sum := 0.0
	for _, n := range c.sum {
		sum += n
	}
	return sum
}

// grown returns the counters that have grown.
func (c *counters) grown() map[string]float64 {
	out := map[string]float64{}
	for name, n := range c.sum {
		if n > 0 {
			out[name] = n
		}
	}
	return out
}

// catalogueWrites picks from Consul's metrics, in Prometheus' text format, how
// often what kind of change was applied to its state. Coordinates, which agents
// send by themselves, autopilot's notes and the leader's own are none of anybody's
// doing.
func catalogueWrites(text string) map[string]float64 {
	out := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, labels, _ := strings.Cut(name, "{")
		kind, ok := strings.CutPrefix(name, "consul_fsm_")
		if !ok || !strings.HasSuffix(kind, "_count") || ownDoing(kind) {
			continue
		}
		if _, after, ok := strings.Cut(lines.Text(), "} "); ok {
			value = after
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			out[strings.TrimSuffix(kind, "_count")+labels] += n
		}
	}
	return out
}

func ownDoing(kind string) bool {
	for _, p := range []string{"coordinate", "autopilot", "system_metadata", "persist", "restore", "tombstone"} {
		if strings.HasPrefix(kind, p) {
			return true
		}
	}
	return false
}
