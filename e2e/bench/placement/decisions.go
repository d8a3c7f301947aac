package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	// freshReports is how old a worker's report in the snapshot may be: workers send
	// two a second. Before each decision so many are read as that asks for.
	freshReports = 500 * time.Millisecond
	// mostReports bounds how many are read before one decision: when decisions come
	// too seldom for that, reports are older.
	mostReports = 16
	// writeReports is how often each worker's report is written: so seldom that the
	// writers, which are elsewhere in earnest, leave the machine to what is measured,
	// and so often that none expires. The readers find as many as ever.
	writeReports = store.ReportTTL * 6 / 10
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

	failed, stop := in.live(rate)
	defer stop()
	v, err := newViewer(t.Context(), in)
	if err != nil {
		return 0, err
	}
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
	cpu, err := v.cpu(t.Context(), b.window, failed)
	if err != nil {
		return 0, err
	}
	turn, err := v.turn(t.Context())
	if err != nil {
		return 0, err
	}
	t.Logf("%d devices: %.0f decisions/s, median %.3f ms, p99 %.3f ms in windows of %v; median and p99 of refresh %s, patch %s, decide %s ms; %d ledger changes; a report in the snapshot at most %.0f ms old",
		devices, harness.Median(perSecond), harness.Median(all), p99, b.window, both(v.refresh), both(v.patch), both(v.choose), v.changes, ms(v.oldest))
	t.Logf("%d devices: reading all reports and putting all workers anew, as at a controller's turn, takes %.1f ms", devices, turn)
	t.Logf("%d devices: a decision takes %.3f ms of CPU time of its thread, p99 %.3f ms", devices, harness.Median(cpu), harness.Quantile(cpu, 0.99))
	aim := "-"
	if devices == 10000 {
		aim = "<=2"
	}
	b.figures.Add(fmt.Sprintf("decisions_per_second_%d_devices", devices), harness.Median(perSecond), "1/s", "-")
	b.figures.Add(fmt.Sprintf("decision_p99_ms_%d_devices", devices), harness.Median(p99), "ms", aim)
	b.figures.Add(fmt.Sprintf("decision_cpu_p99_ms_%d_devices", devices), harness.Quantile(cpu, 0.99), "ms", "-")
	return harness.Median(all), nil
}

// live makes what happens meanwhile: streams that stop and start, and reports that
// are written. stop ends it.
func (in *installation) live(rate float64) (failed <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(in.t.Context())
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return in.churn(ctx, rate) },
		func() error { return in.report(ctx, writeReports) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				errs <- err
			}
		})
	}
	return errs, func() { cancel(); wg.Wait() }
}

// viewer keeps a snapshot as a controller does, and decides.
type viewer struct {
	store    *store.Store
	snapshot *placement.Snapshot
	ledgers  *store.Ledgers
	reports  map[string]capacity.Report
	loads    map[string]map[string]placement.Load // by worker, used again and again
	workers  []string                             // in the order in which their reports are read
	next     int                                  // of workers
	read     time.Time                            // when the last were

	refresh, patch, choose []float64 // ms
	changes                int
	lap                    time.Time     // when the first of the workers' reports was last read
	oldest                 time.Duration // the longest time between that and the next
}

func newViewer(ctx context.Context, in *installation) (*viewer, error) {
	v := &viewer{store: in.store, snapshot: &placement.Snapshot{Policy: placement.DefaultPolicy()}, ledgers: in.store.NewLedgers(), reports: map[string]capacity.Report{}, loads: map[string]map[string]placement.Load{}}
	begin := time.Now()
	n, err := v.ledgers.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	in.t.Logf("%d reservations read in %.2f s", n, time.Since(begin).Seconds())
	v.ledgers.Changed()
	for _, r := range in.reports {
		v.workers = append(v.workers, r.Worker)
		v.reports[r.Worker] = r
		v.put(r.Worker)
	}
	v.read = time.Now()
	return v, nil
}

func (v *viewer) put(worker string) {
	v.loads[worker] = v.ledgers.Load(worker, v.loads[worker])
	v.snapshot.Put(placement.Worker{Report: v.reports[worker], Ledger: v.loads[worker]})
}

// window decides for so long and returns how long each decision took, in ms.
func (v *viewer) window(ctx context.Context, length time.Duration, failed <-chan error) ([]float64, error) {
	var took []float64
	for end := time.Now().Add(length); time.Now().Before(end); {
		ms, err := v.decideNext(ctx, len(took), failed)
		if err != nil {
			return nil, err
		}
		took = append(took, ms)
	}
	return took, nil
}

// decideNext decides for the nth stream, unless something has failed meanwhile.
func (v *viewer) decideNext(ctx context.Context, n int, failed <-chan error) (float64, error) {
	select {
	case err := <-failed:
		return 0, fmt.Errorf("what changes the fleet meanwhile: %w", err)
	default:
	}
	names := []string{"1080p", "720p", "480p", "360p"}
	p, _ := stream.Builtin(names[n%len(names)])
	return v.decide(ctx, placement.Request{Stream: "new", Profile: p, Priority: stream.DefaultPriority})
}

// cpu decides for so long on one thread and returns what each decision took of its
// CPU time, in ms. On a machine that others use too it says what the wall clock
// can't: what is the decision's own.
func (v *viewer) cpu(ctx context.Context, length time.Duration, failed <-chan error) ([]float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []float64
	for end := time.Now().Add(length); time.Now().Before(end); {
		before, err := threadTime()
		if err != nil {
			return nil, err
		}
		if _, err := v.decideNext(ctx, len(took), failed); err != nil {
			return nil, err
		}
		after, err := threadTime()
		if err != nil {
			return nil, err
		}
		took = append(took, ms(after-before))
	}
	return took, nil
}

// threadTime is the thread's CPU time.
func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("reading the thread's CPU time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
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
	if err := v.takeReports(ctx); err != nil {
		return 0, err
	}
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

// turn reads all reports and puts all workers anew; it returns how long that takes,
// in ms.
func (v *viewer) turn(ctx context.Context) (float64, error) {
	var took []float64
	for range 5 {
		begin := time.Now()
		list, err := v.store.Reports(ctx)
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

// takeReports reads some of the workers' reports into the snapshot, in turns, so
// many that each is read once in freshReports.
func (v *viewer) takeReports(ctx context.Context) error {
	due := float64(len(v.workers)) * float64(time.Since(v.read)) / float64(freshReports)
	n := min(int(due), mostReports, len(v.workers))
	if n == 0 {
		return nil
	}
	v.read = time.Now()
	part := make([]string, n)
	for i := range part {
		part[i] = v.workers[(v.next+i)%len(v.workers)]
	}
	if v.next += n; v.next >= len(v.workers) {
		v.next -= len(v.workers)
		if !v.lap.IsZero() {
			v.oldest = max(v.oldest, v.read.Sub(v.lap))
		}
		v.lap = v.read
	}
	list, err := v.store.ReportsOf(ctx, part)
	if err != nil {
		return err
	}
	for _, r := range list {
		v.reports[r.Worker] = r.Report
		v.put(r.Worker)
	}
	return nil
}

func both(v []float64) string {
	return fmt.Sprintf("%.3f %.3f", harness.Median(v), harness.Quantile(v, 0.99))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
