// Package dev is `dionysia dev`: a whole Dionysia on one machine. Redis, Consul
// and mediamtx run as child processes on loopback; the api with its controller,
// the ingest agent, the router and the worker run in this process. All state is
// under one data directory.
package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/auth"
)

// Dev is the command and its state.
type Dev struct {
	DataDir     string `help:"Where all state is kept." default:"${data_dir}" env:"DIONYSIA_DATA_DIR" type:"path"`
	NoDemo      bool   `help:"Leave the test picture out." env:"DIONYSIA_DEV_NO_DEMO"`
	DemoProfile string `help:"The demo stream's profile when it is created." default:"${demo_profile}" env:"DIONYSIA_DEV_DEMO_PROFILE"`
	CPUCapacity int64  `help:"The CPU's budget in encoded pixels per second; 0 measures it." default:"0" env:"DIONYSIA_CPU_CAPACITY"`
	NVMLLibrary string `name:"nvml-library" help:"Path of NVIDIA's libnvidia-ml.so.1, empty for the system's, or off to look for no GPU." default:"" env:"DIONYSIA_NVML_LIBRARY"`
	Sessions    int    `name:"encoder-sessions" help:"Encoder sessions that the host's GeForce cards may hold together; 0 is what the driver is known to allow, -1 no cap." default:"0" env:"DIONYSIA_ENCODER_SESSIONS"`
	WebDir      string `help:"Folder with hls.min.js, for the watch page." env:"DIONYSIA_WEB_DIR" type:"path"`
	Ports       Ports  `embed:"" group:"Ports"`
	Parts       Parts  `embed:"" group:"Parts"`

	// Self is this program's path, for mediamtx's hooks.
	Self string `kong:"-"`

	log           hclog.Logger
	out           io.Writer
	redisPassword string
	secret        auth.Secret
	adminToken    string

	mu      sync.Mutex
	closers []closer
	failed  chan error
}

type closer struct {
	name string
	f    func(context.Context)
}

// DemoProfile is the ladder of the demo stream: small enough for two cores.
const DemoProfile = "480p"

func (d *Dev) logs() string { return filepath.Join(d.DataDir, "logs") }

// onClose puts f on the stack that closing unwinds, last in, first out.
func (d *Dev) onClose(name string, f func(context.Context)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closers = append(d.closers, closer{name, f})
}

func (d *Dev) closeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.log.Debug("stopping", "part", d.closers[i].name)
		d.closers[i].f(ctx)
	}
}

// watch ends the whole when a child does: a development instance without its
// Redis, Consul or mediamtx is no use, and the reason should be plain.
func (d *Dev) watch(c *child) {
	go func() {
		<-c.done
		select {
		case d.failed <- c.exited():
		default:
		}
	}()
}

// Start runs everything until ctx ends.
func (d *Dev) Start(ctx context.Context, log hclog.Logger, out io.Writer) error {
	d.log, d.out, d.failed = log, out, make(chan error, 8)
	unlock, err := d.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	defer d.closeAll()
	begin, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, step := range []struct {
		what string
		f    func(context.Context) error
	}{
		{"Redis", d.startRedis},
		{"Consul", d.startConsul},
		{"the api and its controller", d.startAPI},
		{"the ingest agent", d.startIngest},
		{"mediamtx", d.startMediaMTX},
		{"the router", d.startRouter},
		{"the worker", d.startWorker},
		{"the test picture", d.maybeDemo},
	} {
		if d.NoDemo && step.what == "the test picture" {
			continue
		}
		_, _ = fmt.Fprintf(out, "starting %s\n", step.what)
		if err := step.f(begin); err != nil {
			if ctx.Err() != nil {
				return nil // stopped while starting
			}
			return err
		}
	}
	if err := d.writeEndpoints(); err != nil {
		return err
	}
	d.banner(ctx)
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(out, "\nstopping")
		return nil
	case err := <-d.failed:
		return err
	}
}

// prepare checks what can be checked before anything is started.
func (d *Dev) prepare() (unlock func(), err error) {
	if err := d.Parts.find(!d.NoDemo); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(d.DataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d.DataDir = abs
	// 0711: GPAC runs as an unprivileged user and must be able to pass through;
	// everything but the runs is closed to it.
	if err := os.MkdirAll(d.DataDir, 0o711); err != nil {
		return nil, fmt.Errorf("the data directory can't be written (%w): choose another with --data-dir", err)
	}
	if err := os.MkdirAll(d.logs(), 0o700); err != nil {
		return nil, fmt.Errorf("the data directory can't be written (%w): choose another with --data-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(d.DataDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory can't be written (%w): choose another with --data-dir", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another `dionysia dev` uses the data directory %s: stop it, or choose another with --data-dir", d.DataDir)
		}
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	unlock = func() { _ = f.Close() }
	if err := d.Ports.check(); err != nil {
		unlock()
		return nil, err
	}
	if err := d.secrets(); err != nil {
		unlock()
		return nil, err
	}
	// What a `dionysia dev` that was killed has left says nothing of this one.
	if err := os.Remove(d.endpointsFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		unlock()
		return nil, fmt.Errorf("the data directory can't be written (%w): choose another with --data-dir", err)
	}
	return unlock, nil
}

func (d *Dev) secrets() error {
	read := func(name string) (string, error) {
		v, err := auth.LoadOrCreateSecretFile(filepath.Join(d.DataDir, name))
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		return string(v), nil
	}
	var err error
	if d.redisPassword, err = read("redis.password"); err != nil {
		return err
	}
	if d.adminToken, err = read("admin.token"); err != nil {
		return err
	}
	cluster, err := read("cluster.secret")
	if err != nil {
		return err
	}
	d.secret = auth.Secret(cluster)
	return nil
}

// Endpoints is what <data dir>/endpoints.json says, for scripts.
type Endpoints struct {
	API       string `json:"api"`
	Router    string `json:"router"`
	Origin    string `json:"origin"`
	Ingest    string `json:"ingest"`
	RTMP      string `json:"rtmp"`
	RTSP      string `json:"rtsp"`
	SRT       string `json:"srt"`
	WHIP      string `json:"whip"`
	ConsulUI  string `json:"consul_ui"`
	ConsulDNS string `json:"consul_dns"`
	Redis     string `json:"redis"`
	PID       int    `json:"pid"`
}

func (d *Dev) endpoints() Endpoints {
	p := d.Ports
	return Endpoints{
		API: "http://" + loop(p.API), Router: "http://" + loop(p.Router), Origin: "http://" + loop(p.Origin), Ingest: "http://" + loop(p.Ingest),
		RTMP: "rtmp://" + loop(p.RTMP) + "/live", RTSP: "rtsp://" + loop(p.RTSP) + "/live", SRT: "srt://" + loop(p.SRT),
		WHIP: "http://" + loop(p.WHIP) + "/live", ConsulUI: "http://" + loop(p.ConsulUI) + "/ui", ConsulDNS: loop(p.ConsulDNS),
		Redis: loop(p.Redis), PID: os.Getpid(),
	}
}

func (d *Dev) endpointsFile() string { return d.file("endpoints.json") }

func (d *Dev) writeEndpoints() error {
	b, err := json.MarshalIndent(d.endpoints(), "", "  ")
	if err != nil {
		return err
	}
	path := d.endpointsFile()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("writing the endpoints: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the endpoints: %w", err)
	}
	d.onClose("the endpoints file", func(context.Context) { _ = os.Remove(path) })
	return nil
}

func (d *Dev) banner(ctx context.Context) {
	e := d.endpoints()
	live := e.Router + "/live/" + demoStream
	key, note := "KEY", "\nCreate a stream:  dionysia stream create demo\n"
	if !d.NoDemo {
		// Wait for the picture, so that the printed address works at once.
		wctx, cancel := context.WithTimeout(ctx, 60*time.Second)
		t := time.NewTicker(200 * time.Millisecond)
		page := errors.New("it has not answered") // what there is instead of the playlist
		for wctx.Err() == nil {
			err := answers(wctx, live+"/master.m3u8", nil)
			if err == nil {
				break
			}
			if wctx.Err() == nil {
				page = err
			}
			select {
			case <-wctx.Done():
			case <-t.C:
			case err := <-d.failed:
				d.failed <- err // the caller takes it
				cancel()
			}
		}
		t.Stop()
		late := wctx.Err() != nil
		cancel()
		if late && ctx.Err() == nil {
			d.log.Warn("the test picture can't be played yet", "why", d.whyNot(ctx, page), "status", "dionysia stream status "+demoStream, "logs", d.logs())
		}
		note = "\nThe test picture is sent to the stream demo. Create another with: dionysia stream create NAME --profile 360p\n"
	}
	_, _ = fmt.Fprintf(d.out, `
Dionysia is up. Ctrl-C stops everything.
%s
Watch    page   %s/watch/%s
         HLS    %s/master.m3u8
         DASH   %s/manifest.mpd
Publish  RTMP   %s/STREAM?key=%s   (OBS: server %s, stream key STREAM?key=%s)
         RTSP   rtsp://any:%s@%s/live/STREAM
         SRT    %s?streamid=publish:live/STREAM:any:%s
         WHIP   %s/STREAM/whip   (bearer token %s)
Consul   %s
API      %s/v1   (token: %s)
Data     %s
`, note, e.Router, demoStream, live, live, e.RTMP, key, e.RTMP, key, key, loop(d.Ports.RTSP), e.SRT, key, e.WHIP, key, e.ConsulUI, e.API,
		filepath.Join(d.DataDir, "admin.token"), d.DataDir)
}
