package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const (
	// starts is how many streams are started.
	starts = 5
	// looks is how often Consul's counters are read.
	looks = time.Second
	// quiet is how long before and after, and beside it without any start.
	quiet = 5 * time.Second
)

// writes counts what Consul writes while streams start, while none does, and while
// as many are registered, each as a service with a check, as one does who finds
// streams by Consul.
func (b *bench) writes() error {
	h, err := b.up()
	if err != nil {
		return err
	}
	begin := time.Now()
	started, err := h.written(func() error {
		for n := range starts {
			if err := h.startOne(fmt.Sprintf("write%d", n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	h.t.Logf("%d streams started in %.1f s: %v", starts, took.Seconds(), started.grown())
	idle, err := h.written(func() error { return h.pause(took) })
	if err != nil {
		return err
	}
	h.t.Logf("%.1f s without a start: %v", took.Seconds(), idle.grown())
	naive, err := h.written(h.registerStreams)
	if err != nil {
		return err
	}
	h.t.Logf("%d streams registered: %v", starts, naive.grown())
	b.add("consul_writes_per_stream_start", started.total()/starts)
	b.add("consul_writes_per_stream_start_naive", naive.total()/starts)
	return nil
}

// startOne starts a stream, waits until it plays, and stops it.
func (h *hosts) startOne(stream string) error {
	publisher, err := h.publish(kit.StreamSpec{ID: stream})
	if err != nil {
		return err
	}
	defer publisher.Kill()
	return kit.Playable(h.master(1, stream), goesLive)
}

// registerStreams registers as many streams at a Consul agent, has each pass, and
// takes them out when that is written.
func (h *hosts) registerStreams() error {
	client, err := consul.NewClient(&consul.Config{Address: h.At(4), Token: h.Secret(h.t, "consul.management")})
	if err != nil {
		return fmt.Errorf("preparing consul client: %w", err)
	}
	agent := client.Agent()
	for n := range starts {
		id := fmt.Sprintf("stream-write%d", n)
		err := agent.ServiceRegister(&consul.AgentServiceRegistration{ID: id, Name: "stream", Tags: []string{id}, Address: "10.90.0.3", Port: 8091,
			Check: &consul.AgentServiceCheck{CheckID: id + "-alive", TTL: "1m", Status: consul.HealthCritical}})
		if err == nil {
			err = agent.UpdateTTL(id+"-alive", "ready", consul.HealthPassing)
		}
		if err != nil {
			return fmt.Errorf("registering stream %d: %w", n, err)
		}
	}
	return kit.Wait(h.t.Context(), settles, func() error {
		list, _, err := client.Health().Service("stream", "", true, nil)
		if err == nil && len(list) != starts {
			err = fmt.Errorf("%d of %d streams are registered", len(list), starts)
		}
		return err
	})
}

// written counts what Consul's server writes while f runs and a little later.
func (h *hosts) written(f func() error) (*counters, error) {
	c := newCounters()
	before, err := h.raftIndex()
	if err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(looks)
		defer tick.Stop()
		for {
			c.look(h.consulMetrics())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	err = f()
	if err == nil {
		err = h.pause(quiet)
	}
	close(stop)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	c.look(h.consulMetrics())
	after, err := h.raftIndex()
	h.t.Logf("raft's index rose by %d, what agents and Consul itself write included", after-before)
	return c, err
}

// consulMetrics are the server's, which applies every write.
func (h *hosts) consulMetrics() map[string]float64 {
	status, text := clusterkit.Ask(h.t, http.MethodGet, h.At(4)+"/v1/agent/metrics?format=prometheus", h.Secret(h.t, "consul.management"), "")
	if status != http.StatusOK {
		h.t.Fatalf("Consul's metrics: %d %s", status, text)
	}
	return catalogueWrites(text)
}

func (h *hosts) raftIndex() (int, error) {
	_, text := clusterkit.Ask(h.t, http.MethodGet, h.At(4)+"/v1/agent/self", h.Secret(h.t, "consul.management"), "")
	var self struct {
		Stats struct {
			Raft struct {
				AppliedIndex int `json:"applied_index,string"`
			} `json:"raft"`
		}
	}
	if err := json.Unmarshal([]byte(text), &self); err != nil {
		return 0, fmt.Errorf("reading Consul's raft index: %w", err)
	}
	return self.Stats.Raft.AppliedIndex, nil
}
