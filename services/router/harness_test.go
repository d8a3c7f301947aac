package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/router"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

const deadline = 30 * time.Second

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	testkit.Eventually(t, deadline, what, check)
}

// routes is a store that a test can take away.
type routes struct {
	mu      sync.Mutex
	routes  map[string]stream.Route
	deleted map[string]time.Time
	away    bool
	asked   int
	changes chan string
}

func newRoutes() *routes {
	return &routes{routes: map[string]stream.Route{}, deleted: map[string]time.Time{}, changes: make(chan string, 100)}
}

var errAway = errors.New("store is away")

func (s *routes) Route(_ context.Context, id string) (stream.Route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.away {
		return stream.Route{}, errAway
	}
	r, ok := s.routes[id]
	if at, deleted := s.deleted[id]; !ok && deleted {
		return r, &stream.DeletedError{Stream: id, At: at}
	}
	if !ok {
		return r, fmt.Errorf("stream %s: %w", id, stream.ErrNotFound)
	}
	return r, nil
}

func (s *routes) Watch(context.Context) <-chan string { return s.changes }

func (s *routes) Ping(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errAway
	}
	return nil
}

func (s *routes) put(id string, r stream.Route) {
	s.mu.Lock()
	r.Stream = id
	r.Given = max(r.Given, r.Epoch)
	s.routes[id] = r
	s.mu.Unlock()
}

func (s *routes) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// remove is what an operator does to a stream.
func (s *routes) remove(id string) {
	s.removedAt(id, time.Now())
}

func (s *routes) removedAt(id string, at time.Time) {
	s.mu.Lock()
	s.deleted[id] = at
	delete(s.routes, id)
	s.mu.Unlock()
}

// lose is what happens to all of them when the database is emptied.
func (s *routes) lose() {
	s.mu.Lock()
	clear(s.routes)
	s.mu.Unlock()
}

func live(origin string, epoch uint64) stream.Route {
	return stream.Route{Live: true, Epoch: epoch, Origin: origin, Origins: map[uint64]string{}, Window: 60, HoldBack: 12}
}

// origin is a small real HTTP origin, registered in Consul.
type origin struct {
	t  *testing.T
	id string

	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	// fallback serves what serve does not have; nil: 404.
	fallback http.HandlerFunc
	counts   map[string]int
	epochs   map[string]string // last Dionysia-Epoch by path
	named    string            // the Dionysia-Origin of its answers; "": none
	server   *http.Server
	port     int
	reg      *discovery.Registrar
}

func newOrigin(t *testing.T, id string) *origin {
	o := &origin{t: t, id: id, serve: map[string]http.HandlerFunc{}, counts: map[string]int{}, epochs: map[string]string{}}
	o.listen()
	t.Cleanup(o.kill)
	return o
}

func (o *origin) listen() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		o.t.Fatal(err)
	}
	o.port = l.Addr().(*net.TCPAddr).Port
	o.server = &http.Server{Handler: o, ReadHeaderTimeout: deadline}
	go func(s *http.Server) { _ = s.Serve(l) }(o.server)
}

func (o *origin) kill() { _ = o.server.Close() }

// register keeps o registered until the test ends or unregister.
func (o *origin) register(c *testkit.Consul) {
	reg, err := discovery.NewRegistrar(discovery.Service{
		Name: discovery.OriginService, Tags: []string{o.id}, Address: "127.0.0.1", Port: o.port,
	}, discovery.RegistrarOptions{Addr: c.HTTPAddr, Interval: 100 * time.Millisecond})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := reg.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	o.reg = reg
	o.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = reg.Stop(ctx)
	})
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.counts[r.URL.Path]++
	o.epochs[r.URL.Path] = r.Header.Get("Dionysia-Epoch")
	h, fallback := o.serve[r.URL.Path], o.fallback
	if o.named != "" {
		w.Header().Set("Dionysia-Origin", o.named)
	}
	o.mu.Unlock()
	if h == nil {
		h = fallback
	}
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (o *origin) handle(path string, h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serve[path] = h
}

func (o *origin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[path]
}

func (o *origin) epoch(path string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.epochs[path]
}

// bytes serves body at path.
func (o *origin) bytes(path string, body []byte) {
	o.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "video/mp4")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
}

// playlist serves a media playlist of 5 segments that ends at number last.
func (o *origin) playlist(path, run string, last int, more string) {
	o.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, playlist(run, last)+more)
	})
}

func playlist(run string, last int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:%d\n", last-4)
	fmt.Fprintf(&b, "#EXT-X-MAP:URI=\"../seg/%s/720p/init.mp4\"\n", run)
	for n := last - 4; n <= last; n++ {
		fmt.Fprintf(&b, "#EXTINF:2.000,\n../seg/%s/720p/%d.m4s\n", run, n)
	}
	return b.String()
}

func (o *origin) status(path string, code int) {
	o.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

// world is a router with all that it needs.
type world struct {
	t      *testing.T
	consul *testkit.Consul
	routes *routes
	store  router.Store // routes, when nil
	at     addresses    // the resolver, unless nil: Consul's DNS
	router *router.Router
	base   string
	waits  []time.Duration // of quick's answers
}

func newWorld(t *testing.T, cfg router.Config) *world {
	t.Helper()
	c := testkit.StartConsul(t, 0)
	w := &world{t: t, consul: c, routes: newRoutes()}
	w.start(cfg)
	return w
}

// addresses are those of origins that neither come nor go.
type addresses map[string]string

func (a addresses) Lookup(_ context.Context, id string) ([]string, error) {
	if addr, ok := a[id]; ok {
		return []string{addr}, nil
	}
	return nil, discovery.ErrUnknown
}

func (addresses) Failed(string) {}

func (w *world) start(cfg router.Config) {
	w.t.Helper()
	cfg.Listen = "127.0.0.1:0"
	if w.store == nil {
		w.store = w.routes
	}
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &testLog{t: w.t}})
	reg := prometheus.NewRegistry()
	var err error
	var resolver router.Resolver = w.at
	if w.at == nil {
		resolver = discovery.NewResolver(discovery.ResolverOptions{Addr: w.consul.DNSAddr, Logger: log, Registerer: reg})
	}
	w.router, err = router.New(cfg, router.Deps{Store: w.store, Logger: log, Registry: reg, Resolver: resolver})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.router.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.base = "http://" + w.router.Addr().String()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := w.router.Stop(ctx); err != nil {
			w.t.Errorf("stopping: %v", err)
		}
		slices.Sort(w.waits)
		if n := len(w.waits); n > 0 && w.waits[n/2] > time.Second {
			w.t.Errorf("viewers wait: half of %d answers took over %v", n, w.waits[n/2])
		}
	})
}

// origin starts an origin, registers it and waits until DNS has it.
func (w *world) origin(id string) *origin {
	w.t.Helper()
	o := newOrigin(w.t, id)
	o.register(w.consul)
	w.inDNS(o)
	return o
}

func (w *world) inDNS(o *origin) {
	w.t.Helper()
	eventually(w.t, "origin in dns", func() error {
		got, err := discovery.NewResolver(discovery.ResolverOptions{Addr: w.consul.DNSAddr}).Lookup(w.t.Context(), o.id)
		if err == nil && (len(got) != 1 || got[0] != fmt.Sprintf("127.0.0.1:%d", o.port)) {
			return fmt.Errorf("got %v", got)
		}
		return err
	})
}

// answer is a whole response.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (w *world) get(path string, header ...string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, header...)
}

// quick is get for what answers within a second whatever the origin does. A busy
// machine may delay any one answer, and not half of them, which the test's end looks
// at. A test's own goroutine calls it.
func (w *world) quick(path string) answer {
	w.t.Helper()
	start := time.Now()
	a := w.get(path)
	w.waits = append(w.waits, time.Since(start))
	return a
}

func (w *world) do(method, path string, header ...string) answer {
	w.t.Helper()
	a, err := do(w.t.Context(), method, w.base+path, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func do(ctx context.Context, method, url string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// is waits until path answers with code and a body that contains part.
func (w *world) is(path string, code int, part string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%s: %d %q", path, code, part), func() error {
		a, err := do(w.t.Context(), http.MethodGet, w.base+path)
		if err == nil && (a.code != code || !strings.Contains(a.body, part)) {
			err = fmt.Errorf("got %d %q", a.code, a.body)
		}
		return err
	})
}

// testLog sends a log to the test's.
type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}
