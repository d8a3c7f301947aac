package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// starting measures how long after nomad job run a stream plays by edge, router
// and worker: when only the workers' job was missing, and when nothing ran. Its
// publisher is there from the beginning, or tries to be.
func (b *bench) starting() error {
	h, err := b.up()
	if err != nil {
		return err
	}
	var workers, all []float64
	for n := range b.rounds {
		s, err := h.startWorkers(fmt.Sprintf("start%d", n))
		if err != nil {
			return err
		}
		h.t.Logf("round %d: nomad job run worker → first segment: %.2f s", n+1, s)
		workers = append(workers, s)
	}
	for n := range b.rounds {
		s, err := h.startAll(fmt.Sprintf("startall%d", n))
		if err != nil {
			return err
		}
		h.t.Logf("round %d: nomad job run of every job → first segment: %.2f s", n+1, s)
		all = append(all, s)
	}
	b.addMedian("first_segment_after_job_run_seconds", workers)
	b.addMedian("first_segment_after_all_jobs_run_seconds", all)
	return nil
}

// startWorkers runs the workers' job, which was stopped, and returns after how many
// seconds a stream plays that has been published meanwhile.
func (h *hosts) startWorkers(stream string) (float64, error) {
	if err := h.stopJob("worker"); err != nil {
		return 0, err
	}
	publisher, err := h.publish(kit.StreamSpec{ID: stream})
	if err != nil {
		return 0, err
	}
	defer publisher.Kill()
	err = kit.Wait(h.t.Context(), goesLive, func() error {
		s, err := h.Status(stream)
		if err == nil && s.Session == nil {
			err = fmt.Errorf("%s has no session: %s", stream, s.State)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := h.runJob("worker"); err != nil {
		return 0, err
	}
	if err := kit.Playable(h.master(1, stream), goesLive); err != nil {
		return 0, err
	}
	return time.Since(begin).Seconds(), h.whole()
}

// startAll runs every job, all at once, when none runs; what Redis holds is on its
// disk. The publisher tries again and again until it is taken.
func (h *hosts) startAll(stream string) (float64, error) {
	key, err := h.CreateStream(kit.StreamSpec{ID: stream, Profile: profile})
	if err != nil {
		return 0, err
	}
	if err := h.eachJob(h.stopJob); err != nil {
		return 0, err
	}
	begin := time.Now()
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() { h.insist(stop, h.RTMP(stream, key)) })
	defer publishing.Wait()
	defer close(stop)
	if err := h.eachJob(h.runJob); err != nil {
		return 0, err
	}
	if err := kit.Playable(h.master(1, stream), goesLive); err != nil {
		return 0, err
	}
	return time.Since(begin).Seconds(), h.whole()
}

func (h *hosts) eachJob(f func(string) error) error {
	list := jobs()
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, job := range list {
		wg.Go(func() { errs[i] = f(job) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// insist publishes again whenever the publisher has ended, until stop is closed.
func (h *hosts) insist(stop <-chan struct{}, target []string) {
	for {
		p := kit.Publish(h.t, kit.Picture{}, target)
		select {
		case <-p.Done():
		case <-stop:
			p.Kill()
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-stop:
			return
		}
	}
}
