package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
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
	// writeReports is how often each worker's report is written: so seldom that the
	// writers, which are elsewhere in earnest, leave the machine to what is measured,
	// and so often that none expires. The readers find as many as ever.
	writeReports = store.ReportTTL * 6 / 10
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

	reports, failed, stop := in.live(rate)
	defer stop()
	v, err := newViewer(t.Context(), in, reports)
	if err != nil {
		return 0, err
	}
	if v.waiting, err = newWaiting(); err != nil {
		return 0, err
	}
	defer v.waiting.close()
	var all, p99, perSecond []float64
	runtime.GC()
	for range b.rounds {
		d, err := v.window(t.Context(), b.window, failed)
		if err != nil {
			return 0, err
		}
		all = append(all, d...)
		p99 = append(p99, harness.Quantile(d, 0.99))
		perSecond = append(perSecond, float64(len(d))/b.window.Seconds())
	}
	turn, err := v.turn(t.Context(), in.store)
	if err != nil {
		return 0, err
	}
	t.Logf("%d devices: %.0f decisions/s, median %.3f ms, p99 %.3f ms in windows of %v; of the median refresh %.3f, patch %.3f, decide %.3f ms; %d ledger changes, %d workers put",
		devices, harness.Median(perSecond), harness.Median(all), p99, b.window, harness.Median(v.refresh), harness.Median(v.patch), harness.Median(v.choose), v.changes, v.puts)
	t.Logf("%d devices: reading all reports and putting all workers anew, as at a controller's turn, takes %.1f ms", devices, turn)
	alone := harness.Quantile(v.alone, 0.99)
	t.Logf("%d devices: p99 %.3f ms without the time in which the thread that decides waited for a CPU", devices, alone)
	aim := "-"
	if devices == 10000 {
		aim = "<=2"
	}
	b.figures.Add(fmt.Sprintf("decisions_per_second_%d_devices", devices), harness.Median(perSecond), "1/s", "-")
	b.figures.Add(fmt.Sprintf("decision_p99_ms_%d_devices", devices), harness.Median(p99), "ms", aim)
	b.figures.Add(fmt.Sprintf("decision_p99_less_cpu_wait_ms_%d_devices", devices), alone, "ms", "-")
	return harness.Median(all), nil
}

// live makes what happens meanwhile: streams that stop and start, reports that are
// written and read. stop ends it.
func (in *installation) live(rate float64) (reports <-chan []store.ReportSeen, failed <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(in.t.Context())
	read := make(chan []store.ReportSeen, 1)
	errs := make(chan error, 3)
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return in.churn(ctx, rate) },
		func() error { return in.report(ctx, writeReports) },
		func() error { return readAll(ctx, in.store, read) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				errs <- err
			}
		})
	}
	return read, errs, func() { cancel(); wg.Wait() }
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
	loads    map[string]map[string]placement.Load // by worker, used again and again
	incoming <-chan []store.ReportSeen
	pending  []store.ReportSeen // read, and not put into the snapshot yet

	waiting                *waiting
	refresh, patch, choose []float64 // ms
	alone                  []float64 // ms without waiting for a CPU
	changes, puts          int
}

func newViewer(ctx context.Context, in *installation, incoming <-chan []store.ReportSeen) (*viewer, error) {
	v := &viewer{snapshot: &placement.Snapshot{Policy: placement.DefaultPolicy()}, ledgers: in.store.NewLedgers(), reports: map[string]capacity.Report{}, loads: map[string]map[string]placement.Load{}, incoming: incoming}
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
	v.loads[worker] = v.ledgers.Load(worker, v.loads[worker])
	v.snapshot.Put(placement.Worker{Report: v.reports[worker], Ledger: v.loads[worker]})
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
	before, err := v.waiting.ms()
	if err != nil {
		return 0, err
	}
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
	after, err := v.waiting.ms()
	if err != nil {
		return 0, err
	}
	v.alone = append(v.alone, ms(end.Sub(begin))-(after-before))
	v.refresh = append(v.refresh, ms(refreshed.Sub(begin)))
	v.patch = append(v.patch, ms(patched.Sub(refreshed)))
	v.choose = append(v.choose, ms(end.Sub(patched)))
	return ms(end.Sub(begin)), nil
}

// turn reads all reports and puts all workers anew; it returns how long that takes,
// in ms.
func (v *viewer) turn(ctx context.Context, s *store.Store) (float64, error) {
	var took []float64
	for range 5 {
		begin := time.Now()
		list, err := s.Reports(ctx)
		if err != nil {
			return 0, err
		}
		for _, r := range list {
			v.reports[r.Worker] = r.Report
			v.put(r.Worker)
		}
		took = append(took, ms(time.Since(begin)))
	}
	return harness.Median(took), nil
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
