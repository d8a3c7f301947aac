package roles

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/version"
	"github.com/dionysia-dev/dionysia/worker"
)

// Worker runs a worker: GPAC and its origin.
type Worker struct {
	Listen      string            `help:"Address of the origin." default:":8091" env:"DIONYSIA_WORKER_LISTEN"`
	Advertise   string            `help:"host:port at which routers reach the origin; needed when --listen names no host." env:"DIONYSIA_WORKER_ADVERTISE"`
	ID          string            `name:"id" help:"This worker's id and origin id: a lowercase DNS label." default:"${hostname}" env:"DIONYSIA_WORKER_ID"`
	GPAC        string            `name:"gpac" help:"GPAC's program." default:"gpac" env:"DIONYSIA_GPAC"`
	GPACUser    string            `name:"gpac-user" help:"User that GPAC runs as when the worker is root." default:"nobody" env:"DIONYSIA_GPAC_USER"`
	RunDir      string            `help:"Where runs write their segments; fast and roomy, e.g. a tmpfs." default:"/var/lib/dionysia/runs" env:"DIONYSIA_WORKER_RUN_DIR" type:"path"`
	RunLimit    int64             `name:"run-limit-mib" help:"Most that one run may keep on disk, in MiB." default:"4096" env:"DIONYSIA_WORKER_RUN_LIMIT_MIB"`
	CacheDir    string            `help:"Where calibrations and self-tests are kept." default:"/var/lib/dionysia/cache" env:"DIONYSIA_WORKER_CACHE_DIR" type:"path"`
	CPUCapacity int64             `name:"cpu-capacity" help:"The CPU's budget in encoded pixels per second; 0 measures it." default:"0" env:"DIONYSIA_CPU_CAPACITY"`
	NVMLLibrary string            `name:"nvml-library" help:"Path of NVIDIA's libnvidia-ml.so.1, empty for the system's, or off to look for no GPU." default:"" env:"DIONYSIA_NVML_LIBRARY"`
	Sessions    int               `name:"encoder-sessions" help:"Encoder sessions that the host's GeForce cards may hold together; 0 is what the driver is known to allow, -1 no cap." default:"0" env:"DIONYSIA_ENCODER_SESSIONS"`
	Drain       time.Duration     `name:"drain-timeout" help:"How long a worker that is told to stop waits for others to take its streams over, up to 10m; it ends what is left then. 0 does not wait." default:"20s" env:"DIONYSIA_WORKER_DRAIN_TIMEOUT"`
	Linger      time.Duration     `name:"linger" help:"How long a worker that is told to stop, and whose streams have moved, goes on serving their older segments to routers that lack them; within --drain-timeout, and no longer than their window. 0 does not." default:"30s" env:"DIONYSIA_WORKER_LINGER"`
	NomadNode   string            `name:"nomad-node" help:"Id of the Nomad node that this worker runs on, $${node.unique.id} in a job; the api's controller then follows what Nomad says of it." env:"DIONYSIA_NOMAD_NODE"`
	Labels      map[string]string `name:"label" help:"What streams may require or prefer of this worker, such as class=gpu; may be repeated." placeholder:"KEY=VALUE" mapsep:"," env:"DIONYSIA_WORKER_LABELS"`
	Secret      SecretFlags       `embed:""`
	Redis       RedisFlags        `embed:"" group:"Redis"`
	Consul      ConsulFlags       `embed:"" group:"Consul"`
}

// maxDrain bounds --drain-timeout and --linger.
const maxDrain = 10 * time.Minute

// StopTime is how long it takes to stop at most, when that may be longer than
// other roles take: what follows the drain takes seconds.
func (f Worker) StopTime() time.Duration { return f.Drain + 5*time.Second }

// Start starts it.
func (f Worker) Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (App, error) {
	return begin(ctx, func(s *stack) error {
		if f.Drain < 0 || f.Drain > maxDrain {
			return fmt.Errorf("--drain-timeout %v: it is 0 to %v", f.Drain, maxDrain)
		}
		if f.Linger < 0 || f.Linger > maxDrain {
			return fmt.Errorf("--linger %v: it is 0 to %v", f.Linger, maxDrain)
		}
		secret, err := f.Secret.Secret()
		if err != nil {
			return err
		}
		st, live, err := f.Redis.open(ctx, s, log, reg)
		if err != nil {
			return err
		}
		queue, err := asynq.ParseRedisURI(live)
		if err != nil {
			return fmt.Errorf("--redis-live: %w", err)
		}
		deps := worker.Deps{Store: st, Queue: queue, Logger: log, Registry: reg}
		if f.Consul.Addr != "off" {
			opts, err := f.Consul.options(nil, log)
			if err != nil {
				return err
			}
			deps.Consul = &opts
		}
		w, err := worker.New(worker.Config{ID: f.ID, Listen: f.Listen, Advertise: f.Advertise, GPAC: f.GPAC, GPACUser: f.GPACUser,
			RunDir: f.RunDir, CacheDir: f.CacheDir, CPUCapacity: f.CPUCapacity, NVML: f.NVMLLibrary, SessionLimit: f.Sessions, Labels: f.Labels,
			RunLimit: f.RunLimit << 20, DrainTimeout: f.Drain, Linger: f.Linger, NomadNode: f.NomadNode, Secret: secret, Version: version.String()}, deps)
		if err != nil {
			return err
		}
		if err := w.Start(ctx); err != nil {
			return err
		}
		s.add(w.Stop)
		return nil
	})
}
