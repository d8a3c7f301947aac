package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const (
	// holdBack is how far behind the live edge the player stays, in s: not the default
	// of 12, which outlasts both, but what is for less delay.
	holdBack = 6
	// listed is how many segments a playlist must list before a player comes: one
	// that comes to a stream that has just begun plays at its very edge.
	listed = 10
	// settled is how long a player has played before it is measured: it has filled
	// its buffer.
	settled = 15 * time.Second
	// playsOn is how long a player is measured after the join is listed: it has
	// played over it.
	playsOn = 25 * time.Second
)

// drained is what one drain or restart cost: how long until the next run's first
// segment was listed, how long a player stood still, and the least that it had
// left to play, all in s.
type drained struct{ handover, stall, left float64 }

// drain measures what a viewer sees when the node of a stream's worker is drained,
// and beside it when the workers' job is stopped and run again without a drain.
func (b *bench) drain() error {
	h, err := b.up()
	if err != nil {
		return err
	}
	const stream = "drain"
	publisher, err := h.publish(kit.StreamSpec{ID: stream, HoldBack: holdBack})
	if err != nil {
		return err
	}
	defer publisher.Kill()
	players := kit.StartPlayers(h.t)
	var drains, colds []drained
	for n := range b.rounds {
		d, err := h.watched(players, stream, h.drainNode)
		if err != nil {
			return fmt.Errorf("draining: %w", err)
		}
		h.t.Logf("round %d, drain: %s", n+1, d)
		drains = append(drains, d)
		if d, err = h.watched(players, stream, h.restartCold); err != nil {
			return fmt.Errorf("restarting: %w", err)
		}
		h.t.Logf("round %d, cold restart: %s", n+1, d)
		colds = append(colds, d)
	}
	for _, f := range []struct {
		name string
		of   func(drained) float64
	}{
		{"handover_seconds", func(d drained) float64 { return d.handover }},
		{"stall_seconds", func(d drained) float64 { return d.stall }},
		{"least_buffer_seconds", func(d drained) float64 { return d.left }},
	} {
		b.addMedian("drain_"+f.name, column(drains, f.of))
		b.addMedian("cold_restart_"+f.name, column(colds, f.of))
	}
	return nil
}

// String says it in words.
func (d drained) String() string {
	return fmt.Sprintf("handover %.2f s, stall %.2f s, %.2f s left in the buffer at least", d.handover, d.stall, d.left)
}

func column(list []drained, of func(drained) float64) (out []float64) {
	for _, d := range list {
		out = append(out, of(d))
	}
	return out
}

// leastAhead returns the least that a player had buffered ahead, in s, of the
// samples since the nth; each second has one.
func leastAhead(r kit.Report, n int) float64 {
	least := math.Inf(1)
	for _, s := range r.Samples[min(n, len(r.Samples)):] {
		if len(s) == 3 { // wall clock, currentTime, ahead
			least = min(least, s[2])
		}
	}
	return least
}

// watched does something to the stream's worker while hls.js plays the stream by
// an edge on another host than the worker's. The thing is told the worker, and
// returns what is to be done when the player has been seen to play on.
func (h *hosts) watched(players *kit.PlayerServer, stream string, do func(worker string) (after func() error, err error)) (drained, error) {
	var d drained
	if err := h.whole(); err != nil {
		return d, err
	}
	placed := h.Placement(h.t, stream, "")
	edge, err := h.edgeApart(placed.Worker)
	if err != nil {
		return d, err
	}
	master := "http://" + h.Reach(h.t, "server", edge.Addr) + "/live/" + stream + "/master.m3u8"
	if err := h.lists(master, listed); err != nil {
		return d, err
	}
	page := players.Open(h.t, "hls.html", master)
	defer page.Close(h.t)
	page.WaitStarted(h.t, time.Minute)
	before := page.Play(h.t, settled)

	list := make(chan result, 1)
	begin := time.Now()
	go func() { list <- h.nextEpoch(stream, placed.Epoch) }()
	after, err := do(placed.Worker)
	if err != nil {
		return d, err
	}
	joined := <-list
	if joined.err != nil {
		return d, joined.err
	}
	d.handover = joined.at.Sub(begin).Seconds()
	if err := h.pause(playsOn); err != nil {
		return d, err
	}
	report, err := page.Report()
	if err != nil {
		return d, err
	}
	report = report.Since(before)
	h.t.Logf("%s", report)
	if len(report.Fatal) > 0 || report.Stuck > 1 {
		return d, fmt.Errorf("the player has not played on: %s", report)
	}
	d.stall, d.left = report.StallSeconds(), leastAhead(report, len(before.Samples))
	return d, after()
}

// lists waits until the first variant of a master playlist has n segments.
func (h *hosts) lists(master string, n int) error {
	return kit.Wait(h.t.Context(), goesLive, func() error {
		m, err := kit.FetchMaster(master)
		if err != nil {
			return err
		}
		media, err := kit.FetchMedia(m.Variants[0].URL)
		if err == nil && len(media.Segments) < n {
			err = fmt.Errorf("%s lists %d segments", master, len(media.Segments))
		}
		return err
	})
}

// edgeApart returns an edge that is on another host.
func (h *hosts) edgeApart(host string) (clusterkit.Instance, error) {
	for _, e := range h.Passing(h.t, "edge") {
		if e.Host != host {
			return e, nil
		}
	}
	return clusterkit.Instance{}, fmt.Errorf("no edge passes on another host than %s", host)
}

// drainNode is nomad node drain; afterwards the node takes work again.
func (h *hosts) drainNode(worker string) (after func() error, err error) {
	node, err := h.node(worker)
	if err != nil {
		return nil, err
	}
	return func() error {
		err := kit.Wait(h.t.Context(), settles, func() error {
			list, _, err := h.nomad.Nodes().Allocations(node, nil)
			for _, a := range list {
				if a.JobID == "worker" && a.ClientStatus == "running" {
					err = fmt.Errorf("the worker still runs on %s, which drains", worker)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		return h.command("node", "drain", "-disable", "-yes", node)
	}, h.command("node", "drain", "-enable", "-yes", "-detach", node)
}

// restartCold is nomad job stop of all workers, and nomad job run as soon as they
// have stopped. None of them hands a stream over: no other takes it.
func (h *hosts) restartCold(string) (after func() error, err error) {
	if err := h.stopJob("worker"); err != nil {
		return nil, err
	}
	return func() error { return nil }, h.runJob("worker")
}

// result is when something was seen, or why it was not.
type result struct {
	at  time.Time
	err error
}

// nextEpoch waits until a router lists a segment of a higher epoch.
func (h *hosts) nextEpoch(stream string, epoch uint64) result {
	m, err := kit.FetchMaster(h.master(2, stream))
	if err != nil {
		return result{err: err}
	}
	deadline := time.Now().Add(goesLive)
	for {
		media, err := kit.FetchMedia(m.Variants[0].URL)
		now := time.Now()
		if err == nil && newest(media) > epoch {
			return result{at: now}
		}
		if now.After(deadline) {
			return result{err: fmt.Errorf("no segment of %s after epoch %d within %v: %w", stream, epoch, goesLive, err)}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// newest returns the highest epoch of the segments that a playlist lists, 0 for
// none.
func newest(m kit.Media) uint64 {
	var epoch uint64
	for _, s := range m.Segments {
		epoch = max(epoch, epochOf(s.URL))
	}
	return epoch
}

// epochOf reads the epoch in a segment's URL: …/seg/e12r3/….
func epochOf(segment string) uint64 {
	_, run, _ := strings.Cut(segment, "/seg/e")
	digits, _, _ := strings.Cut(run, "r")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
