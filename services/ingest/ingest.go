// Package ingest is the agent beside each mediamtx, on loopback. It answers
// mediamtx's auth calls, takes its hooks, lists and kicks its paths, and
// reports to the api what is being published.
//
//	              auth, hooks                publish?, report
//	mediamtx ───────────────────▶ agent ───────────────────────▶ api
//	         ◀───────────────────       ◀───────────────────────
//	              list, kick                 allow, kick
//
// mediamtx calls auth from the one goroutine that also adds and lists its
// paths: while a call is open nobody else can start publishing or reading, and
// its path list does not answer. So an auth call never waits for the path list
// (that would be a deadlock), and waits for the api only for apiPatience.
//
// Everything is level-triggered: the list is polled and the whole report is
// sent again each second; a hook only makes that happen at once.
package ingest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of Config.
const (
	DefaultListen      = "127.0.0.1:8092"
	DefaultPoll        = 500 * time.Millisecond
	DefaultReport      = time.Second
	DefaultSilence     = 2 * time.Second
	DefaultGrantTTL    = 10 * time.Minute
	DefaultAPIPatience = time.Second
)

// Labels from which the cluster's secret derives the credentials between
// mediamtx, the agent and the api.
const (
	labelInternalAPI = "internal-api"
	labelHook        = "mediamtx-hook"
	labelMediaMTX    = "mediamtx-api"
)

// User names that go with the derived passwords.
const (
	hookUser     = "mediamtx" // mediamtx, towards the agent
	mediaMTXUser = "dionysia" // the agent, towards mediamtx's API
)

// Secret is the cluster's secret, see services/auth.
type Secret interface {
	// Derive returns the credential that belongs to a label.
	Derive(label string) string
	// VerifyReadToken returns an error unless token allows to read path.
	VerifyReadToken(token, path string) error
}

// Config of an agent. A zero duration is its default.
type Config struct {
	Listen string // host:port of the agent's HTTP server; keep it on loopback
	Node   string // this ingest node's id
	APIURL string // base URL of the api, e.g. http://127.0.0.1:8080
	// MediaMTXAPI is the base URL of mediamtx's control API.
	MediaMTXAPI string
	// RTMPAddr and RTSPAddr are mediamtx's addresses as workers reach them,
	// host:port.
	RTMPAddr string
	RTSPAddr string
	Secret   Secret

	// Poll is how often mediamtx's paths are listed.
	Poll time.Duration
	// Report is how often the api is told, besides at each change.
	Report time.Duration
	// Silence is how long a publisher may send nothing before another one with
	// the right key takes over.
	Silence time.Duration
	// GrantTTL is how long after it was last seen a publisher whose key was
	// accepted may return while the api is away.
	GrantTTL time.Duration
	// APIPatience bounds one question to the api. mediamtx stands still
	// meanwhile, see the package comment.
	APIPatience time.Duration
}

// Deps are what an agent is given.
type Deps struct {
	Logger   hclog.Logger
	Registry interface {
		prometheus.Registerer
		prometheus.Gatherer
	}
}

// Agent is the ingest role.
type Agent struct {
	cfg     Config
	log     hclog.Logger
	reg     prometheus.Gatherer
	metrics *metrics
	mtx     *mtxClient
	api     *apiClient
	book    *book
	grants  *grants
	quiet   *quiet
	// unanswered are publishers that were asked for credentials.
	unanswered *challenges
	unkeyed    *unkeyed
	boot       string

	mtxHealth, apiHealth health

	hookPassword string
	mtxPassword  string

	pollNow   chan struct{}
	reportNow chan struct{}

	listener net.Listener
	server   *http.Server
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// New returns an agent that Start starts. It registers its metrics with
// deps.Registry.
func New(cfg Config, deps Deps) (*Agent, error) {
	if cfg.Node == "" || cfg.APIURL == "" || cfg.MediaMTXAPI == "" || cfg.Secret == nil {
		return nil, errors.New("ingest: node, api URL, mediamtx API URL and secret are required")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	def(&cfg.Poll, DefaultPoll)
	def(&cfg.Report, DefaultReport)
	def(&cfg.Silence, DefaultSilence)
	def(&cfg.GrantTTL, DefaultGrantTTL)
	def(&cfg.APIPatience, DefaultAPIPatience)
	m, err := newMetrics(deps.Registry)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	boot := make([]byte, 8)
	_, _ = rand.Read(boot) // never fails, see crypto/rand
	a := &Agent{
		cfg:          cfg,
		log:          deps.Logger.Named("ingest"),
		reg:          deps.Registry,
		metrics:      m,
		mtx:          newMTXClient(cfg.MediaMTXAPI, mediaMTXUser, cfg.Secret.Derive(labelMediaMTX)),
		api:          newAPIClient(cfg.APIURL, cfg.Secret.Derive(labelInternalAPI), cfg.APIPatience),
		book:         newBook(cfg.Silence),
		grants:       newGrants(cfg.GrantTTL),
		quiet:        newQuiet(time.Minute),
		unanswered:   newChallenges(),
		unkeyed:      newUnkeyed(),
		boot:         hex.EncodeToString(boot),
		hookPassword: cfg.Secret.Derive(labelHook),
		mtxPassword:  cfg.Secret.Derive(labelMediaMTX),
		pollNow:      make(chan struct{}, 1),
		reportNow:    make(chan struct{}, 1),
	}
	return a, nil
}

// Start binds the listener, then serves, polls and reports until Stop.
func (a *Agent) Start(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.cfg.Listen)
	if err != nil {
		return fmt.Errorf("ingest agent: %w", err)
	}
	a.listener = l
	a.server = &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
	}
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.wg.Go(func() {
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("serving", "error", err)
		}
	})
	a.wg.Go(func() { a.pollLoop(ctx) })
	a.wg.Go(func() { a.reportLoop(ctx) })
	a.wg.Go(func() { a.unkeyedLoop(ctx) })
	a.log.Info("ingest agent started", "listen", l.Addr().String(), "node", a.cfg.Node, "boot", a.boot)
	return nil
}

// Stop ends the agent. Publishers that are live stay live: mediamtx asks only
// when one starts.
func (a *Agent) Stop(ctx context.Context) error {
	if a.server == nil {
		return nil
	}
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	a.cancel()
	a.wg.Wait()
	return err
}

// Addr returns the address that the agent listens on, once started.
func (a *Agent) Addr() string { return a.listener.Addr().String() }

// nudge makes a loop go round at once; a nudge that is already waiting is
// enough for both.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
