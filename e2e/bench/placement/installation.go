package main

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// installation is a fleet with streams placed on it, in Redis.
type installation struct {
	servers
	store   *store.Store
	reports []capacity.Report
	seats   []*seat // those that stop and start again
}

// restarting is how many of the streams do.
const restarting = 5000

// seat is a placed stream.
type seat struct {
	proposal store.Proposal
	epoch    uint64
}

// machines makes the reports of workers with so many devices in all. Of each ten
// workers two have a CPU alone, eight a CPU and up to four cards of two engines.
func machines(devices int) []capacity.Report {
	var list []capacity.Report
	for n := 0; n < devices; {
		i := len(list)
		id := fmt.Sprintf("worker-%05d", i)
		clock := 1.0
		r := capacity.Report{Worker: id, Boot: "boot-" + id, Host: id, Version: "bench", Origin: "127.0.0.1:8080", Queue: id, Ready: true, ClockErrorMillis: &clock, GPAC: "1.0.1",
			Labels: map[string]string{"class": fmt.Sprint(i % 5), "datacenter": fmt.Sprint(i % 3)}}
		for j := range min(1+max(0, i%10-1)%5, devices-n) {
			r.Devices = append(r.Devices, device(i, j))
			n++
		}
		list = append(list, r)
	}
	return list
}

// device makes the jth device of the ith worker: a CPU of 32 cores, or a card.
func device(i, j int) capacity.Device {
	px, used, cores := int64(1_280_000_000), int64(0), 32
	if j == 0 {
		return capacity.Device{ID: capacity.ResourceCPU, Kind: capacity.CPU, Name: "CPU", Usable: true, Codecs: []string{"h264"}, Capacity: &px, CapacitySource: "cached", Used: &used, Cores: &cores}
	}
	px = 2_146_590_720
	one, memory, limited := px/2, int64(24<<30), false
	return capacity.Device{ID: fmt.Sprintf("gpu-%08x-0000-0000-0000-%012x", i, j), Kind: capacity.GPU, Name: "L4", Usable: true, Codecs: []string{"h264", "hevc"},
		Capacity: &px, CapacitySource: "table", SessionMax: &one, Used: &used, GPU: &capacity.GPUState{SessionLimited: &limited, MemoryTotal: &memory, MemoryUsed: &used}}
}

// install places streams evenly on the devices, with fsync off meanwhile.
func install(s servers, devices, streams int) (*installation, error) {
	in := &installation{servers: s, reports: machines(devices)}
	var err error
	if in.store, err = s.open(); err != nil {
		return nil, err
	}
	ctx := s.t.Context()
	if err := harness.SetRedis(ctx, s.state, "appendfsync", "no"); err != nil {
		return nil, err
	}
	if err := harness.Parallel(32, in.evenly(streams), func(st *seat) error { return in.commit(ctx, st) }); err != nil {
		return nil, err
	}
	for _, r := range in.reports {
		if err := in.store.PutReport(ctx, r); err != nil {
			return nil, err
		}
	}
	return in, harness.SetRedis(ctx, s.state, "appendfsync", "always")
}

// evenly makes the seats of so many streams, and keeps some of them.
func (in *installation) evenly(streams int) iter.Seq[*seat] {
	return func(yield func(*seat) bool) {
		for n := 0; n < streams; {
			for i := range in.reports {
				for j := range in.reports[i].Devices {
					if n == streams {
						return
					}
					st := in.seat(n, i, j)
					if n%max(1, streams/restarting) == 0 {
						in.seats = append(in.seats, st)
					}
					if n++; !yield(st) {
						return
					}
				}
			}
		}
	}
}

func (in *installation) seat(n, worker, device int) *seat {
	names := []string{"480p", "360p", "480p", "720p"}
	p, _ := stream.Builtin(names[n%len(names)])
	r := in.reports[worker]
	d := r.Devices[device]
	id := fmt.Sprintf("stream-%06d", n)
	st := &seat{proposal: store.Proposal{Placement: stream.Placement{Stream: id, Broadcast: "b-" + id, Worker: r.Worker, Device: d.ID, Boot: r.Boot,
		Reserved: placement.PriceProfile(d.Kind, p).Reserve(r, d), State: stream.PlacementPlaced, Profile: p}}}
	for _, res := range st.proposal.Placement.Reserved {
		l, ok := r.Limit(res.Resource)
		if !ok {
			l = capacity.Limit{Limit: placement.Unbounded}
		}
		st.proposal.Limits = append(st.proposal.Limits, l)
	}
	return st
}

func (in *installation) commit(ctx context.Context, st *seat) error {
	epoch, err := in.store.Commit(ctx, st.proposal)
	if err != nil {
		return err
	}
	st.epoch, st.proposal.ExpectEpoch = epoch, epoch
	return nil
}

// churn stops a stream and starts it again, rate times a second and with as many
// probes, until ctx ends: what other streams do while one is decided for.
func (in *installation) churn(ctx context.Context, rate float64) error {
	rng := rand.New(rand.NewPCG(1, 2))
	every := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		if err := in.restart(ctx, in.seats[rng.IntN(len(in.seats))]); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (in *installation) restart(ctx context.Context, st *seat) error {
	id := st.proposal.Placement.Stream
	if err := in.store.Release(ctx, id, st.epoch); err != nil {
		return err
	}
	if err := in.commit(ctx, st); err != nil {
		return err
	}
	less := append([]stream.Reservation(nil), st.proposal.Placement.Reserved...)
	less[0].Amount = less[0].Amount * 9 / 10
	return in.store.Reprice(ctx, id, st.epoch, less)
}

// report writes all reports again and again, each once in a period.
func (in *installation) report(ctx context.Context, period time.Duration) error {
	const parts = 20
	every := time.NewTicker(period / parts)
	defer every.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		for i := n % parts; i < len(in.reports); i += parts {
			if err := in.store.PutReport(ctx, in.reports[i]); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
	}
}
