package device

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// NVMLOff is the Config.NVML that looks for no GPU.
const NVMLOff = "off"

// Runner runs GPAC with cmd in dir, an empty directory of this process's user:
// it writes cmd's files into it and gives it to the user that GPAC runs as. It
// returns what GPAC printed and the CPU time it used. The error is that of
// starting it, or of its exit status.
type Runner func(ctx context.Context, dir string, cmd gpac.Command) (out []byte, usage time.Duration, err error)

// Config of a Manager.
type Config struct {
	GPAC string // program
	// GPACVersion keys what is kept; its zero value means that there is no usable
	// GPAC, and no device is usable then.
	GPACVersion gpac.Version
	CacheDir    string // where results of self-tests and calibrations are kept
	// CPUCapacity is the CPU's budget in px/s of x264 veryfast; 0 measures it.
	CPUCapacity int64
	// NVML is the path of libnvidia-ml; "" is the system's, NVMLOff looks for no
	// GPU. A process can hold one such library only, for good.
	NVML string
	// SessionLimit is how many encoder sessions the system's GeForce cards may
	// hold together: 0 is what the driver's version is known to allow, -1 no cap.
	SessionLimit int
	// Usage returns the CPU time that runs have used so far, those that have
	// ended included, by the id of the device they encode on. nil: there are none.
	Usage      func() map[string]time.Duration
	Logger     hclog.Logger          // nil logs nothing
	Registerer prometheus.Registerer // nil keeps no metrics
	Run        Runner                // nil runs GPAC as this process's user
	Now        func() time.Time      // nil is time.Now
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.CacheDir == "":
		return c, errors.New("devices: a directory for the cache is needed")
	case c.CPUCapacity < 0:
		return c, errors.New("devices: the CPU's capacity can't be negative")
	case c.SessionLimit < -1:
		return c, errors.New("devices: the limit of encoder sessions is -1 (no cap), 0 (the driver's) or more")
	}
	if c.GPAC == "" {
		c.GPAC = "gpac"
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Usage == nil {
		c.Usage = func() map[string]time.Duration { return nil }
	}
	if c.Run == nil {
		c.Run = runDirectly(c.GPAC)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func (c Config) cache() cache { return cache{c.CacheDir, c.Logger} }
