package clusterkit

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Instance is a service's, as Consul knows it: Addr is its host:port, Admin that of
// its metrics where they have one of their own, Alloc its Nomad allocation.
type Instance struct{ Host, Addr, Admin, Alloc string }

// Passing returns what passes all its checks.
func (c *Cluster) Passing(t kit.T, service string) []Instance {
	t.Helper()
	status, body := Ask(t, http.MethodGet, c.At(4)+"/v1/health/service/"+service+"?passing=true", c.Secret(t, "consul.operator"), "")
	var list []struct {
		Node    struct{ Node string }
		Service struct {
			Address string
			Port    int
			Meta    map[string]string
		}
	}
	if err := json.Unmarshal([]byte(body), &list); status != http.StatusOK || err != nil {
		t.Fatalf("%s in Consul: %d %s", service, status, body)
	}
	var out []Instance
	for _, i := range list {
		out = append(out, Instance{i.Node.Node, net.JoinHostPort(i.Service.Address, strconv.Itoa(i.Service.Port)), i.Service.Meta["admin"], i.Service.Meta["alloc"]})
	}
	return out
}

// Inside returns the paths that a pattern, such as /srv/nomad/alloc/*, has on the
// hosts that run, as they are seen from here: what a host has mounted is its own.
func (c *Cluster) Inside(t kit.T, pattern string) []string {
	t.Helper()
	var out []string
	for host := range Addresses() {
		b, err := os.ReadFile(filepath.Join(c.Dir, "pid", "host-"+host))
		if err != nil {
			continue // it was killed
		}
		pid, _, _ := strings.Cut(string(b), " ")
		found, err := filepath.Glob(filepath.Join("/proc", pid, "root", pattern))
		if err != nil {
			t.Fatalf("%v", err)
		}
		out = append(out, found...)
	}
	return out
}

// Kill kills a host's first process, and with it the host, at once.
func (c *Cluster) Kill(t kit.T, host string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, "pid", "host-"+host))
	if err != nil {
		t.Fatalf("%v", err)
	}
	pid, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %s: %v", host, err)
	}
	c.Run(t, "kill", host) // returns when it is gone
}

// Placed says where a stream runs.
type Placed struct {
	Worker string
	Epoch  uint64
}

// Placement waits until the stream runs on a worker that is not this one.
func (c *Cluster) Placement(t kit.T, stream, not string) Placed {
	t.Helper()
	var p Placed
	kit.Eventually(t, goesLive, stream+" being placed", func() error {
		s, err := c.Status(stream)
		if err != nil {
			return err
		}
		if s.Placement == nil || s.Placement.Worker == not || s.Run == nil || s.State != "live" {
			return fmt.Errorf("%s, placement %+v, run %+v: %s", s.State, s.Placement, s.Run, s.LastError)
		}
		p = Placed{s.Placement.Worker, s.Placement.Epoch}
		return nil
	})
	return p
}

// Ask sends a request with a Consul and Nomad token, none when it is empty.
func Ask(t kit.T, method, url, token, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v", err)
	}
	if token != "" {
		req.Header.Set("X-Consul-Token", token)
		req.Header.Set("X-Nomad-Token", token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}
