package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/kit"
	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// leastCold is how many first requests uncached's p99 is taken of, at least.
const leastCold = 1000

// dns measures how long a router takes to tell where a stream's origin is, with
// more and more origins registered: a router that has asked for each origin
// before, one that has asked for none, and redirectors that ask at each request.
func (b *bench) dns() error {
	return b.t.Within(func(t *harness.T) error {
		f, err := newFleet(t, b.streams)
		if err != nil {
			return err
		}
		naive, err := startNaive(t, f)
		if err != nil {
			return err
		}
		for _, n := range sizes() {
			if err := f.grow(t, n); err != nil {
				return err
			}
			if err := b.resolve(t, f, naive); err != nil {
				return fmt.Errorf("%d origins: %w", n, err)
			}
		}
		return nil
	})
}

// resolve measures with the origins that are registered.
func (b *bench) resolve(t *harness.T, f *fleet, naive []redirecting) error {
	rng := rand.New(rand.NewPCG(1, uint64(f.origins)))
	cold, router, err := b.cold(t, f, rng)
	if err != nil {
		return err
	}
	t.Logf("%d origins, router, each origin's first: %s", f.origins, cold)
	p99 := map[string][]float64{}
	for round := range b.rounds {
		for _, r := range append([]redirecting{{"cached", router.base}}, naive...) {
			a, err := drive(r.base, b.rate, f.any(rng, int(b.window.Seconds()*float64(b.rate)), b.window))
			if err != nil {
				return err
			}
			t.Logf("%d origins, round %d, %s: %s (%s)", f.origins, round+1, r.name, a, harness.Load())
			p99[r.name] = append(p99[r.name], a.p99())
		}
	}
	router.proc.Kill()
	b.addMedian(dnsFigure("cached", f.origins), p99["cached"])
	b.add(dnsFigure("uncached", f.origins), cold.p99())
	b.addMedian(dnsFigure("naive_srv", f.origins), p99["naive_srv"])
	b.addMedian(dnsFigure("naive_health", f.origins), p99["naive_health"])
	var ratios []float64
	for i := range p99["cached"] {
		ratios = append(ratios, p99["cached"][i]/min(p99["naive_srv"][i], p99["naive_health"][i]))
	}
	b.addMedian(fmt.Sprintf("dns_cached_vs_naive_%d_origins", f.origins), ratios)
	return nil
}

// cold asks routers that have just started for one stream of each origin, and
// returns the last of them, which knows all origins.
func (b *bench) cold(t *harness.T, f *fleet, rng *rand.Rand) (answers, routing, error) {
	var all answers
	for {
		r := startRouter(t, f)
		a, err := drive(r.base, b.rate, f.each(rng))
		if err != nil {
			return all, r, err
		}
		all.took, all.rate = append(all.took, a.took...), a.rate
		if len(all.took) >= leastCold {
			return all, r, nil
		}
		r.proc.Kill()
	}
}

func (f *fleet) request(stream int) request {
	return request{"/live/" + streamID(stream) + "/master.m3u8", fmt.Sprintf("%s:%d", originAddr(f.of(stream)), originPort)}
}

// each asks for a stream of each origin, in any order.
func (f *fleet) each(rng *rand.Rand) iter.Seq[request] {
	return func(yield func(request) bool) {
		for _, origin := range rng.Perm(f.origins) {
			if !yield(f.request(origin + f.origins*rng.IntN(f.streams/f.origins))) {
				return
			}
		}
	}
}

// any asks for n streams, each as likely as any other, or for as many as it comes
// to in a while.
func (f *fleet) any(rng *rand.Rand, n int, while time.Duration) iter.Seq[request] {
	return func(yield func(request) bool) {
		begin := time.Now()
		for range n {
			if time.Since(begin) > while+while/10 || !yield(f.request(rng.IntN(f.streams))) {
				return
			}
		}
	}
}

type redirecting struct{ name, base string }

// routing is a router that redirects.
type routing struct {
	base string
	proc *kit.Proc
}

// startRouter starts the product's router; it sends viewers to the origin itself,
// so that an answer takes as long as the origin takes to find.
func startRouter(t *harness.T, f *fleet) routing {
	addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	dir := t.TempDir()
	write := func(name, text string) string {
		file := dir + "/" + name
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		return file
	}
	r := routing{base: "http://" + addr}
	r.proc = kit.Start(t, "dionysia router", []string{kit.Binary(t), "router", "--listen", addr, "--mode", "redirect", "--consul-dns", f.consul.DNSAddr},
		kit.WithEnv("DIONYSIA_REDIS_STATE=redis://"+f.redis.Addr+"/0", "DIONYSIA_REDIS_LIVE=redis://"+f.redis.Addr+"/1",
			"DIONYSIA_REDIS_PASSWORD_FILE="+write("redis.password", f.redis.Password),
			"DIONYSIA_SECRET_FILE="+write("cluster.secret", "bench-bench-bench-bench-bench-bench"), "DIONYSIA_CONSUL_ADDR="+f.consul.HTTPAddr))
	answering(t, r.proc, r.base+"/readyz")
	return r
}

// startNaive starts what the router is compared with.
func startNaive(t *harness.T, f *fleet) ([]redirecting, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	ports := testkit.FreePorts(t, 2)
	srv, health := fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	p := kit.Start(t, naiveCommand, []string{self, naiveCommand, "-srv", srv, "-health", health, "-dns", f.consul.DNSAddr, "-consul", f.consul.HTTPAddr},
		kit.WithEnv(naiveRedis+"="+f.redis.URL(0)))
	list := []redirecting{{"naive_srv", "http://" + srv}, {"naive_health", "http://" + health}}
	for _, r := range list {
		answering(t, p, r.base+"/")
	}
	return list, nil
}

// answering waits until a process answers at a URL, whatever it says, unless that
// is /readyz.
func answering(t *harness.T, p *kit.Proc, url string) {
	kit.Eventually(t, time.Minute, p.Name+" answering", func() error {
		if !p.Running() {
			t.Fatalf("%s ended: %s\n%s", p.Name, p.Exit(), kit.Tail(p.Log, 3000))
		}
		a, err := kit.Fetch(url)
		if err == nil && a.Status >= 300 && url[len(url)-1] != '/' {
			err = fmt.Errorf("status %d: %s", a.Status, a.Body)
		}
		return err
	})
}
