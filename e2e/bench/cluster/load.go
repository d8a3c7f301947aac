package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

// connections are as many requests as can be under way at once.
const connections = 16

// request is one to a redirector, and where it must lead.
type request struct{ path, host string }

// answers are how long each request took, in ms, and how many there were a second.
type answers struct {
	took []float64
	rate float64
}

func (a answers) p99() float64 { return harness.Quantile(a.took, 0.99) }

func (a answers) String() string {
	return fmt.Sprintf("%d answers, %.0f a second, median %.2f ms, p99 %.2f ms, p99.9 %.2f ms", len(a.took), a.rate, harness.Median(a.took), a.p99(), harness.Quantile(a.took, 0.999))
}

// drive sends the requests, rate of them a second as long as a connection is free
// for each. A server that is slower than that gets them more slowly.
func drive(base string, rate int, list iter.Seq[request]) (answers, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	work := make(chan request)
	took, errs := make([][]float64, connections), make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			for r := range work {
				if errs[i] != nil {
					continue
				}
				begin := time.Now()
				errs[i] = follow(transport, base, r)
				took[i] = append(took[i], float64(time.Since(begin))/float64(time.Millisecond))
			}
		})
	}
	begin := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for r := range list {
		<-tick.C
		work <- r
	}
	tick.Stop()
	close(work)
	wg.Wait()
	var a answers
	for _, t := range took {
		a.took = append(a.took, t...)
	}
	a.rate = float64(len(a.took)) / time.Since(begin).Seconds()
	return a, errors.Join(errs...)
}

// follow asks where a request leads.
func follow(transport http.RoundTripper, base string, r request) error {
	req, err := http.NewRequest(http.MethodGet, base+r.path, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusTemporaryRedirect || to != "http://"+r.host+r.path {
		return fmt.Errorf("%s%s: %s to %q, not to %s: %.200s", base, r.path, resp.Status, to, r.host, body)
	}
	return nil
}
