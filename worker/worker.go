// Package worker is the role that transcodes: it keeps a GPAC process for each
// of its placements, serves what they make as an origin, and reports twice a
// second what it can take.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/device"
	"github.com/dionysia-dev/dionysia/worker/gpac"
	"github.com/dionysia-dev/dionysia/worker/origin"
	"github.com/dionysia-dev/dionysia/worker/transcode"
)

// Store is what a worker needs of Redis.
type Store interface {
	transcode.Store
	origin.Store
	PutReport(ctx context.Context, r capacity.Report) error
	Reports(ctx context.Context) ([]store.ReportSeen, error)
	Time(ctx context.Context) (time.Time, error)
}

// Config of a worker.
type Config struct {
	ID     string // worker id and origin id: a lowercase DNS label
	Listen string // the origin's address; port 0 takes any
	// Advertise is the host:port at which routers reach the origin; empty is
	// Listen's own, which must then name a host.
	Advertise string
	GPAC      string // program; default "gpac"
	GPACUser  string // as whom GPAC runs when the worker is root; default "nobody"
	RunDir    string
	CacheDir  string // where calibrations and self-tests are kept
	// CPUCapacity is the CPU's budget in px/s; 0 measures it.
	CPUCapacity int64
	// NVML is the path of libnvidia-ml; "" is the system's, device.NVMLOff looks
	// for no GPU.
	NVML string
	// SessionLimit is how many encoder sessions the system's GeForce cards may hold
	// together: 0 is what the driver is known to allow, -1 no cap.
	SessionLimit int
	// NomadNode is the id of the Nomad node that the worker runs on; "" without.
	NomadNode string
	// Labels are what streams may require or prefer; see stream.CheckLabel.
	Labels   map[string]string
	RunLimit int64 // bytes of one run's directory; 0 is the default
	Secret   auth.Secret
	Version  string // of this program
	// DrainTimeout is how long Stop waits at most for other workers to take the
	// streams over, and for Linger; 0 does not wait.
	DrainTimeout time.Duration
	// Linger is how long Stop serves on at most what was public of streams that
	// have moved; 0 does not.
	Linger time.Duration
	// Tuning of the transcode manager, for tests; zero values are the defaults.
	StartTimeout time.Duration
}

// Deps of a worker.
type Deps struct {
	Store Store
	// Queue is where asynq's tasks are: Redis live. nil serves no queue, and
	// placements are found by reconciling alone.
	Queue asynq.RedisConnOpt
	// Consul registers the origin; nil registers nothing. Its Ready is ignored:
	// the check passes while the worker is ready.
	Consul   *discovery.RegistrarOptions
	Logger   hclog.Logger
	Registry *prometheus.Registry
}

// Worker is a running worker.
type Worker struct {
	cfg  Config
	deps Deps
	log  hclog.Logger
	boot string
	m    *metrics

	listener net.Listener
	server   *http.Server
	origin   *origin.Origin
	devices  *device.Manager
	runs     *transcode.Manager
	queue    *asynq.Server
	consul   *discovery.Registrar

	takerAge time.Duration // see the constant

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	drain bool
	// stopping is set once the worker has left Consul.
	stopping bool
	gpac     gpac.Version
	reason   string // why it is not ready, "" when it is
	clockMS  *float64
}

// New checks the configuration.
func New(cfg Config, deps Deps) (*Worker, error) {
	cfg.GPAC = cmp.Or(cfg.GPAC, "gpac")
	if err := discovery.CheckLabel(cfg.ID); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	switch {
	case cfg.RunDir == "" || cfg.CacheDir == "":
		return nil, errors.New("worker: a directory for runs and one for the cache are needed")
	case deps.Store == nil:
		return nil, errors.New("worker: a store is needed")
	}
	for k, v := range cfg.Labels {
		if err := stream.CheckLabel(k, v); err != nil {
			return nil, fmt.Errorf("worker: %w", err)
		}
	}
	if deps.Logger == nil {
		deps.Logger = hclog.NewNullLogger()
	}
	if deps.Registry == nil {
		deps.Registry = prometheus.NewRegistry()
	}
	return &Worker{cfg: cfg, deps: deps, log: deps.Logger.Named("worker"), boot: uuid.NewString(), takerAge: takerAge}, nil
}

// Start begins to serve and to take placements. GPAC need not be usable: the
// worker then reports why it is not ready.
func (w *Worker) Start(ctx context.Context) (err error) {
	w.ctx, w.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			w.Stop(ctx)
		}
	}()
	for _, dir := range []string{w.cfg.RunDir, w.cfg.CacheDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("worker: %w", err)
		}
	}
	if w.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", w.cfg.Listen); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	host, port, err := w.advertised()
	if err != nil {
		return fmt.Errorf("worker: --advertise: %w", err)
	}
	w.m = newMetrics(w.deps.Registry)
	w.origin, err = origin.New(origin.Config{ID: w.cfg.ID, Dir: w.cfg.RunDir, Store: w.deps.Store, VerifyEpoch: w.cfg.Secret.VerifyEpoch,
		Logger: w.log.Named("origin"), Registerer: w.deps.Registry})
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	jail := w.findGPAC(ctx)
	if w.devices, err = device.NewManager(w.deviceConfig(jail)); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w.runs = transcode.New(transcode.Config{Worker: w.cfg.ID, Boot: w.boot, Dir: w.cfg.RunDir, GPAC: w.cfg.GPAC, Jail: jail, Version: w.gpac,
		RunLimit: w.cfg.RunLimit, StartTimeout: w.cfg.StartTimeout, Token: w.token()},
		transcode.Deps{Store: w.deps.Store, Origin: w.origin, Devices: w.devices, Logger: w.log.Named("run"), Registerer: w.deps.Registry})
	w.server = &http.Server{Handler: w.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	w.server.RegisterOnShutdown(w.origin.EndWaits)
	w.wg.Go(func() {
		if err := w.server.Serve(w.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			w.log.Error("serving", "error", err)
		}
	})
	w.devices.Start(ctx)
	w.wg.Go(w.heartbeat)
	w.wg.Go(w.reconcile)
	if err := w.serveQueue(); err != nil {
		return err
	}
	if w.deps.Consul != nil {
		opts := *w.deps.Consul
		opts.Ready = w.Ready
		if opts.Logger == nil {
			opts.Logger = w.log
		}
		w.consul, err = discovery.NewRegistrar(discovery.Service{Name: discovery.OriginService, Tags: []string{w.cfg.ID}, Address: host, Port: port}, opts)
		if err != nil {
			return fmt.Errorf("worker: %w", err)
		}
		if err := w.consul.Start(ctx); err != nil {
			return fmt.Errorf("worker: %w", err)
		}
	}
	w.log.Info("worker started", "id", w.cfg.ID, "boot", w.boot, "origin", net.JoinHostPort(host, strconv.Itoa(port)), "gpac", w.gpac.String())
	return nil
}

// Stop takes nothing new, lets others take its streams, serves on for a while what
// was public of them, ends the runs that are left flushed, deregisters and stops
// serving.
func (w *Worker) Stop(ctx context.Context) {
	w.Drain(true)
	if w.queue != nil {
		w.queue.Shutdown()
	}
	if w.runs != nil {
		w.leave(ctx)
	}
	if w.consul != nil {
		if err := w.consul.Stop(ctx); err != nil {
			w.log.Warn("deregistering from Consul failed; its check will expire", "error", err)
		}
	}
	w.mu.Lock()
	w.stopping = true
	w.mu.Unlock()
	if w.runs != nil {
		_ = w.putReport() // says that it drains; it may fail
		w.runs.Stop()
		w.devices.Stop()
	}
	w.cancel()
	if w.server != nil {
		if err := w.server.Shutdown(ctx); err != nil {
			_ = w.server.Close()
		}
	} else if w.listener != nil {
		_ = w.listener.Close()
	}
	w.wg.Wait()
	if w.origin != nil {
		w.origin.Close()
	}
}

// Addr is where the origin listens, after Start.
func (w *Worker) Addr() string { return w.listener.Addr().String() }

// Boot is this start's id.
func (w *Worker) Boot() string { return w.boot }

// Runs is the transcode manager, for tests.
func (w *Worker) Runs() *transcode.Manager { return w.runs }

// Drain says whether nothing new is to be placed here; what runs goes on.
func (w *Worker) Drain(on bool) {
	w.mu.Lock()
	w.drain = on
	w.mu.Unlock()
}

// Ready returns why the worker can't serve, nil when it can.
func (w *Worker) Ready(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopping {
		return errors.New("draining")
	}
	if w.reason != "" {
		return errors.New(w.reason)
	}
	return nil
}

func (w *Worker) advertised() (host string, port int, err error) {
	return discovery.Advertised(w.listener.Addr().String(), w.cfg.Advertise)
}

// findGPAC looks for GPAC and for what it runs under; what is wrong becomes the
// reason for not being ready.
func (w *Worker) findGPAC(ctx context.Context) transcode.Jail {
	v, err := gpac.Detect(ctx, w.cfg.GPAC)
	jail, jerr := transcode.NewJail(w.cfg.GPACUser)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gpac = v
	if err := errors.Join(err, jerr); err != nil {
		w.reason = "GPAC can't run here: " + err.Error()
		w.log.Error("not ready", "reason", w.reason)
	}
	return jail
}

// deviceConfig is that of the devices' manager. Its tests run in GPAC's jail; that
// of a GPAC which can't run is not used.
func (w *Worker) deviceConfig(jail transcode.Jail) device.Config {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := device.Config{GPAC: w.cfg.GPAC, CacheDir: w.cfg.CacheDir, CPUCapacity: w.cfg.CPUCapacity, NVML: w.cfg.NVML,
		SessionLimit: w.cfg.SessionLimit, Usage: func() map[string]time.Duration { return w.runs.Usage() },
		Logger: w.log.Named("device"), Registerer: w.deps.Registry, Run: transcode.Runner(jail, w.cfg.GPAC)}
	if w.reason == "" {
		c.GPACVersion = w.gpac
	}
	return c
}

// readTokenTTL is how long a read token may wait for its use: GPAC shows it at
// once, and it is checked only then.
const readTokenTTL = time.Minute

func (w *Worker) token() func(string) (string, error) {
	if len(w.cfg.Secret) == 0 {
		return nil
	}
	return func(path string) (string, error) { return w.cfg.Secret.ReadToken(path, w.cfg.ID, readTokenTTL) }
}

func (w *Worker) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/live/", w.origin)
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.deps.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, r *http.Request) {
		if err := w.Ready(r.Context()); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = rw.Write([]byte("ready\n"))
	})
	return mux
}
