package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	// readReports is how often all reports are read; workers send two a second.
	readReports = 500 * time.Millisecond
	// writeReports is how often each worker's report is written: seldom enough that
	// the writers leave the two cores to what is measured, often enough that none
	// expires.
	writeReports = 2 * time.Second
	// takeReports is how many of the reports that were read are put into the
	// snapshot before each decision, at most.
	takeReports = 40
	// meanStay is how long a stream lasts: it gives the rate of other starts and
	// stops.
	meanStay = 2000.0 // s
)

// decisions measures how long a decision takes at several sizes of the fleet, what
// keeps its snapshot fresh included.
func (b *bench) decisions() error {
	median := map[int]float64{}
	for _, devices := range []int{10, 1000, 10000} {
		err := b.t.Within(func(t *harness.T) error {
			var err error
			median[devices], err = b.decide(t, devices)
			return err
		})
		if err != nil {
			return fmt.Errorf("%d devices: %w", devices, err)
		}
	}
	b.figures.Add("decision_growth_1000_to_10000", median[10000]/median[1000], "ratio", "<=10")
	return nil
}

// decide returns the median of a decision in ms.
func (b *bench) decide(t *harness.T, devices int) (float64, error) {
	s, err := startServers(t)
	if err != nil {
		return 0, err
	}
	streams := b.streams * devices / 10000
	begin := time.Now()
	in, err := install(s, devices, streams)
	if err != nil {
		return 0, err
	}
	rate := max(2, float64(streams)/meanStay)
	t.Logf("%d devices of %d workers, %d streams placed in %.1f s; meanwhile %.0f starts, stops and probes a second", devices, len(in.reports), streams, time.Since(begin).Seconds(), rate)

	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan []store.ReportSeen, 1)
	errs := make(chan error, 3)
	go func() { errs <- in.churn(ctx, rate) }()
	go func() { errs <- in.report(ctx, writeReports) }()
	go func() { errs <- readAll(ctx, in.store, reports) }()
	defer func() { cancel(); <-errs; <-errs; <-errs }()

	v, err := newViewer(ctx, in, reports)
	if err != nil {
		return 0, err
	}
	var all, p99, perSecond []float64
	runtime.GC()
	for range b.rounds {
		d, err := v.window(ctx, b.window, errs)
		if err != nil {
			return 0, err
		}
		all = append(all, d...)
		p99 = append(p99, harness.Quantile(d, 0.99))
		perSecond = append(perSecond, float64(len(d))/b.window.Seconds())
	}
	t.Logf("%d devices: %.0f decisions/s, median %.3f ms, p99 %.3f ms in windows of %v; of the median refresh %.3f, patch %.3f, decide %.3f ms; %d ledger changes, %d workers put",
		devices, harness.Median(perSecond), harness.Median(all), p99, b.window, harness.Median(v.refresh), harness.Median(v.patch), harness.Median(v.choose), v.changes, v.puts)
	aim := "-"
	if devices == 10000 {
		aim = "<=2"
	}
	b.figures.Add(fmt.Sprintf("decisions_per_second_%d_devices", devices), harness.Median(perSecond), "1/s", "-")
	b.figures.Add(fmt.Sprintf("decision_p99_ms_%d_devices", devices), harness.Median(p99), "ms", aim)
	return harness.Median(all), nil
}

// readAll reads all reports every readReports.
func readAll(ctx context.Context, s *store.Store, out chan<- []store.ReportSeen) error {
	every := time.NewTicker(readReports)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		list, err := s.Reports(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case out <- list:
		case <-ctx.Done():
			return nil
		}
	}
}

// viewer keeps a snapshot as a controller does, and decides.
type viewer struct {
	snapshot *placement.Snapshot
	ledgers  *store.Ledgers
	reports  map[string]capacity.Report
	incoming <-chan []store.ReportSeen
	pending  []store.ReportSeen // read, and not put into the snapshot yet

	refresh, patch, choose []float64 // ms
	changes, puts          int
}

func newViewer(ctx context.Context, in *installation, incoming <-chan []store.ReportSeen) (*viewer, error) {
	v := &viewer{snapshot: &placement.Snapshot{Policy: placement.DefaultPolicy()}, ledgers: in.store.NewLedgers(), reports: map[string]capacity.Report{}, incoming: incoming}
	begin := time.Now()
	n, err := v.ledgers.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	in.t.Logf("%d reservations read in %.2f s", n, time.Since(begin).Seconds())
	v.ledgers.Changed()
	for _, r := range in.reports {
		v.reports[r.Worker] = r
		v.put(r.Worker)
	}
	return v, nil
}

func (v *viewer) put(worker string) {
	v.snapshot.Put(placement.Worker{Report: v.reports[worker], Ledger: v.ledgers.Load(worker, nil)})
	v.puts++
}

// window decides for so long and returns how long each decision took, in ms.
func (v *viewer) window(ctx context.Context, length time.Duration, failed <-chan error) ([]float64, error) {
	names := []string{"1080p", "720p", "480p", "360p"}
	var took []float64
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case err := <-failed:
			return nil, fmt.Errorf("what changes the fleet meanwhile: %w", err)
		default:
		}
		p, _ := stream.Builtin(names[len(took)%len(names)])
		ms, err := v.decide(ctx, placement.Request{Stream: "new", Profile: p, Priority: stream.DefaultPriority})
		if err != nil {
			return nil, err
		}
		took = append(took, ms)
	}
	return took, nil
}

// decide brings the snapshot up to date and decides.
func (v *viewer) decide(ctx context.Context, r placement.Request) (float64, error) {
	begin := time.Now()
	n, err := v.ledgers.Refresh(ctx)
	if err != nil {
		return 0, err
	}
	refreshed := time.Now()
	v.changes += n
	for _, w := range v.ledgers.Changed() {
		v.put(w)
	}
	v.takeReports()
	patched := time.Now()
	if _, err := placement.Decide(v.snapshot, r); err != nil {
		return 0, err
	}
	end := time.Now()
	v.refresh = append(v.refresh, ms(refreshed.Sub(begin)))
	v.patch = append(v.patch, ms(patched.Sub(refreshed)))
	v.choose = append(v.choose, ms(end.Sub(patched)))
	return ms(end.Sub(begin)), nil
}

// takeReports puts some of the reports that have been read into the snapshot.
func (v *viewer) takeReports() {
	if len(v.pending) == 0 {
		select {
		case v.pending = <-v.incoming:
		default:
		}
	}
	n := min(takeReports, len(v.pending))
	for _, r := range v.pending[:n] {
		v.reports[r.Worker] = r.Report
		v.put(r.Worker)
	}
	v.pending = v.pending[n:]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
