package kit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Endpoints is what `dionysia dev` writes to <data dir>/endpoints.json.
type Endpoints struct {
	API       string `json:"api"`        // http://host:port
	Router    string `json:"router"`     // http://host:port
	Origin    string `json:"origin"`     // http://host:port
	Ingest    string `json:"ingest"`     // http://host:port of the ingest agent
	RTMP      string `json:"rtmp"`       // rtmp://host:port/live
	RTSP      string `json:"rtsp"`       // rtsp://host:port/live
	SRT       string `json:"srt"`        // srt://host:port
	WHIP      string `json:"whip"`       // http://host:port/live
	ConsulUI  string `json:"consul_ui"`  // http://host:port/ui
	ConsulDNS string `json:"consul_dns"` // host:port
	Redis     string `json:"redis"`      // host:port
	PID       int    `json:"pid"`        // of the process that wrote it
}

// devPorts are the flags that give `dionysia dev` its ports.
var devPorts = []string{"api", "router", "origin", "ingest", "rtmp", "rtsp", "srt", "whip", "ice", "mediamtx",
	"redis", "consul", "consul-dns", "consul-rpc", "consul-lan"}

// Dev is a running `dionysia dev` with a data directory of its own.
type Dev struct {
	Endpoints
	*API
	Proc    *Proc
	DataDir string
	Dog     *Watchdog

	t T
}

// DevOptions changes how StartDev starts it.
type DevOptions struct {
	DataDir string   // "" makes a fresh one
	Args    []string // more arguments, after the kit's own
	Env     []string // more environment, NAME=value
	Demo    bool     // with the test picture
}

// DevArgs returns the arguments that start an instance in dataDir on free
// ports.
func DevArgs(t T, dataDir string, demo bool) []string {
	t.Helper()
	base, err := FreeBase(len(devPorts))
	if err != nil {
		t.Fatalf("%v", err)
	}
	args := []string{"dev", "--data-dir", dataDir}
	if !demo {
		args = append(args, "--no-demo")
	}
	for i, name := range devPorts {
		args = append(args, "--"+name+"-port", strconv.Itoa(base+i))
	}
	return args
}

// DataDir makes a directory that GPAC's unprivileged user can pass through too.
func DataDir(t T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dionysia-e2e-")
	if err != nil {
		t.Fatalf("making a data directory: %v", err)
	}
	_ = os.Chmod(dir, 0o711)
	t.Cleanup(func() {
		if t.Failed() {
			printLogs(t, filepath.Join(dir, "logs"))
		}
		_ = os.RemoveAll(dir)
	})
	return filepath.Join(dir, "data")
}

func printLogs(t T, dir string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, l := range logs {
		t.Logf("---- %s\n%s", filepath.Base(l), Tail(l, 3000))
	}
}

// StartDev starts an instance and waits until it says where it listens. When
// the test ends it is stopped with SIGINT, and a process that is left behind
// fails the test.
func StartDev(t T, o DevOptions) *Dev {
	t.Helper()
	bin := Binary(t)
	if o.DataDir == "" {
		o.DataDir = DataDir(t)
	}
	argv := append([]string{bin}, DevArgs(t, o.DataDir, o.Demo)...)
	d := &Dev{DataDir: o.DataDir, t: t}
	// A calibration on a machine that is busy with tests would be wrong at random.
	env := append([]string{"DIONYSIA_CPU_CAPACITY=200000000"}, o.Env...)
	d.Proc = Start(t, "dionysia dev", append(argv, o.Args...), WithEnv(env...))
	d.Dog = NewWatchdog(d.Proc.Pid(), filepath.Dir(o.DataDir), marker(t))
	t.Cleanup(func() {
		if t.Failed() {
			printLogs(t, filepath.Join(d.DataDir, "logs"))
		}
		d.Stop()
	})
	d.waitUp()
	return d
}

func (d *Dev) waitUp() {
	d.t.Helper()
	Eventually(d.t, 2*time.Minute, "dionysia dev writing its endpoints", func() error {
		if !d.Proc.Running() {
			d.t.Fatalf("dionysia dev ended: %s\n%s", d.Proc.Exit(), Tail(d.Proc.Log, 6000))
		}
		b, err := os.ReadFile(filepath.Join(d.DataDir, "endpoints.json"))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &d.Endpoints); err != nil {
			return err
		}
		if d.PID != d.Proc.Pid() {
			return fmt.Errorf("process %d wrote it, an earlier one", d.PID)
		}
		return nil
	})
	token, err := os.ReadFile(filepath.Join(d.DataDir, "admin.token"))
	if err != nil {
		d.t.Fatalf("the bootstrap token: %v", err)
	}
	d.API = NewAPI(d.Endpoints.API, strings.TrimSpace(string(token)))
	Eventually(d.t, time.Minute, "a worker that is ready", func() error {
		ws, err := d.Workers()
		if err != nil {
			return err
		}
		for _, w := range ws {
			if w.Ready {
				return nil
			}
			err = fmt.Errorf("worker %s: %s", w.ID, w.Reason)
		}
		return errors.Join(errors.New("no worker is ready"), err)
	})
}

// Stop asks it to end with SIGINT, as Ctrl-C does, and checks that every
// process of it is gone.
func (d *Dev) Stop() {
	d.t.Helper()
	if d.Proc.Running() {
		if err := d.Proc.Stop(syscall.SIGINT, 45*time.Second); err != nil {
			d.t.Errorf("%v", err)
			d.Proc.Kill()
		} else if d.Proc.ExitCode() != 0 {
			d.t.Errorf("dionysia dev after SIGINT: %s\n%s", d.Proc.Exit(), Tail(d.Proc.Log, 4000))
		}
	}
	d.Dog.ExpectNoneLeft(d.t, 30*time.Second)
}

// Crash ends it with kill -9, the main process alone.
func (d *Dev) Crash() {
	d.Proc.Signal(syscall.SIGKILL)
	<-d.Proc.Done()
}

// Children returns its descendants whose program has this name.
func (d *Dev) Children(exe string) []Process {
	var found []Process
	for _, p := range Descendants(d.Proc.Pid()) {
		if p.Exe() == exe || strings.HasPrefix(p.Exe(), exe+"-") {
			found = append(found, p)
		}
	}
	return found
}

// GPACs returns its GPAC processes.
func (d *Dev) GPACs() []Process {
	gpac, err := FindPart("DIONYSIA_GPAC", "gpac")
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	return d.Children(filepath.Base(gpac))
}

// KillGPAC kills the one GPAC that runs, with SIGKILL, and returns its pid.
func (d *Dev) KillGPAC() int {
	d.t.Helper()
	var pid int
	Eventually(d.t, 30*time.Second, "one GPAC process", func() error {
		ps := d.GPACs()
		if len(ps) != 1 {
			return fmt.Errorf("GPAC processes: %v", ps)
		}
		pid = ps[0].Pid
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		d.t.Fatalf("killing GPAC %d: %v", pid, err)
	}
	return pid
}

// Master and MPD are a stream's public addresses.
func (d *Dev) Master(stream string) string { return d.Router + "/live/" + stream + "/master.m3u8" }
func (d *Dev) MPD(stream string) string    { return d.Router + "/live/" + stream + "/manifest.mpd" }
