package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	consul "github.com/hashicorp/consul/api"

	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/store"
)

// naiveCommand makes this program a redirector as one writes it without a second
// thought: it asks Redis for each request's origin, as the router does, and
// Consul for that origin's address, at each request again.
const naiveCommand = "naive-redirector"

// naiveRedis is the environment variable with Redis' URL, which has a password.
const naiveRedis = "BENCH_REDIS"

// locate returns an origin's host:port.
type locate func(ctx context.Context, origin string) (string, error)

// serveNaive listens at two addresses: at -srv it asks by the standard library's
// resolver, at -health by Consul's HTTP API.
func serveNaive(args []string) error {
	flags := flag.NewFlagSet(naiveCommand, flag.ContinueOnError)
	srv := flags.String("srv", "", "address of the redirector that asks by DNS")
	health := flags.String("health", "", "address of the redirector that asks by HTTP")
	dns := flags.String("dns", "", "Consul's DNS")
	api := flags.String("consul", "", "Consul's HTTP API")
	if err := flags.Parse(args); err != nil {
		return err
	}
	url := os.Getenv(naiveRedis)
	st, err := store.Open(context.Background(), store.Options{StateURL: url})
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	byHealth, err := healthLocator(*api)
	if err != nil {
		return err
	}
	done := make(chan error, 2)
	for addr, l := range map[string]locate{*srv: srvLocator(*dns), *health: byHealth} {
		go func() { done <- http.ListenAndServe(addr, redirector(st, l)) }()
	}
	return <-done
}

// redirector answers like the router in its mode "redirect".
func redirector(st *store.Store, l locate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		id, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/live/"), "/")
		route, err := st.Route(req.Context(), id)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		addr, err := l(req.Context(), route.Origin)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Location", "http://"+addr+req.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// srvLocator asks for the SRV record, and for the address of its target: the
// standard library leaves out what the first answer says of that.
func srvLocator(dns string) locate {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, dns)
	}}
	return func(ctx context.Context, origin string) (string, error) {
		_, list, err := r.LookupSRV(ctx, "", "", origin+"."+discovery.OriginService+".service.consul.")
		if err != nil {
			return "", err
		}
		hosts, err := r.LookupHost(ctx, list[0].Target)
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(hosts[0], strconv.Itoa(int(list[0].Port))), nil
	}
}

// healthLocator asks for the passing instances that have the origin's tag.
func healthLocator(addr string) (locate, error) {
	client, err := consul.NewClient(&consul.Config{Address: addr})
	if err != nil {
		return nil, fmt.Errorf("preparing consul client: %w", err)
	}
	return func(ctx context.Context, origin string) (string, error) {
		list, _, err := client.Health().Service(discovery.OriginService, origin, true, (&consul.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return "", err
		}
		if len(list) == 0 {
			return "", fmt.Errorf("origin %s: %w", origin, discovery.ErrUnknown)
		}
		return net.JoinHostPort(list[0].Service.Address, strconv.Itoa(list[0].Service.Port)), nil
	}, nil
}
