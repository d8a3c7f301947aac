package device

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// staleAfter is when what NVML said of a card is too old to be relied on: its
// call hangs.
const staleAfter = 5 * time.Second

// gpu is a card as a device. It is kept when the card is gone.
type gpu struct {
	cfg      Config
	id, name string
	lessons  lessons

	mu     sync.Mutex
	driver string
	state  capacity.GPUState
	seenAt time.Time // when state was read, by this host's monotonic clock
	gone   error     // nil while the card answers
	kept   record    // self-tests and calibration for what the card is now
	// tested holds the proofs that count now: kept ones that succeeded, and those
	// of this boot.
	tested map[string]proof
	// proveAt is when the encoders are to be tested; zero when there is no need.
	proveAt time.Time
	// all says that codecs whose proof counts are tested too.
	all    bool
	failed int // self-tests in a row that no codec passed
	// measured: the speed is of this process, not from the cache.
	measured bool
}

func newGPU(cfg Config, id, name string) *gpu {
	return &gpu{cfg: cfg, id: id, name: name, tested: map[string]proof{}}
}

// saw takes in what the watcher found.
func (g *gpu) saw(s sighting) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.gone != nil {
		if g.gone == nil {
			g.cfg.Logger.Warn("a GPU is gone", "device", g.id, "name", g.name, "reason", s.gone)
		}
		g.gone = s.gone
		return
	}
	if g.gone != nil {
		g.cfg.Logger.Info("a GPU is back", "device", g.id, "name", g.name)
	}
	g.gone, g.name, g.driver, g.state, g.seenAt = nil, s.name, s.driver, s.state, time.Now()
	k := key{Device: g.id, Hardware: g.name, Driver: g.driver, GPAC: g.cfg.GPACVersion.String()}
	if g.kept.key == k {
		return
	}
	g.kept, g.tested, g.failed, g.measured = g.cfg.cache().load(k), map[string]proof{}, 0, false
	for codec, p := range g.kept.SelfTest {
		if p.OK {
			g.tested[codec] = p
		}
	}
	if len(g.untested()) > 0 {
		g.proveAt = g.cfg.Now()
	}
	g.cfg.Logger.Info("GPU", "device", g.id, "name", g.name, "driver", g.driver, "engines", g.engines(), "proven_before", slices.Sorted(maps.Keys(g.tested)))
}

func (g *gpu) architecture() string {
	if g.state.Architecture == nil {
		return ""
	}
	return *g.state.Architecture
}

func (g *gpu) mig() bool { return g.state.MIG != nil && *g.state.MIG }

func (g *gpu) engines() int { return engines(g.name, g.architecture(), g.mig()) }

// claimed are the codecs that the card is said to encode: by NVML, or all where
// it does not tell. Only an encode proves them.
func (g *gpu) claimed() []string {
	if g.engines() == 0 {
		return nil
	}
	if g.state.EncoderCapacity == nil {
		return codecs
	}
	return slices.DeleteFunc(slices.Clone(codecs), func(c string) bool { _, ok := g.state.EncoderCapacity[c]; return !ok })
}

// untested are the claimed codecs without a proof that counts.
func (g *gpu) untested() []string {
	return slices.DeleteFunc(slices.Clone(g.claimed()), func(c string) bool { _, ok := g.tested[c]; return ok })
}

// proven are the codecs that an encode has proven.
func (g *gpu) proven() []string {
	return slices.DeleteFunc(slices.Clone(g.claimed()), func(c string) bool { return !g.tested[c].OK })
}

// reason is why no codec is proven.
func (g *gpu) reason() string {
	switch claimed := g.claimed(); {
	case g.engines() == 0:
		return fmt.Sprintf("%s has no NVENC (NVIDIA's support matrix)", g.name)
	case len(claimed) == 0:
		return "NVML names no codec that it encodes"
	case g.cfg.GPACVersion == (gpac.Version{}):
		return noGPAC
	case len(g.untested()) > 0:
		return "its encoders have not been proven yet"
	default:
		codec, detail := claimed[0], g.tested[claimed[0]].Detail
		if strings.Contains(detail, "No codecid specified") { // so 1.0.1 says that its libavcodec lacks it
			return fmt.Sprintf("GPAC has no %s_nvenc: %s", codec, detail)
		}
		return fmt.Sprintf("GPAC can't encode with %s_nvenc: %s", codec, detail)
	}
}

// device is what the report says of it.
func (g *gpu) device() capacity.Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	state := g.state
	d := capacity.Device{ID: g.id, Kind: capacity.GPU, Name: g.name, Codecs: g.proven(), GPU: &state}
	if d.Usable = len(d.Codecs) > 0 && g.cfg.GPACVersion != (gpac.Version{}); !d.Usable {
		d.Reason = g.reason()
		d.Codecs = []string{}
	}
	n := g.engines()
	state.Encoders = &n
	if px, source, ok := g.engine(); ok && n > 0 {
		full := px * int64(n)
		budget, one := int64(float64(full)*Headroom), int64(float64(px)*Headroom)
		d.Capacity, d.SessionMax, d.CapacitySource = &budget, &one, source
		if u := state.EncoderUtilization; u != nil && !g.mig() {
			used := full * int64(*u) / 100
			d.Used = &used
		}
	}
	g.lessons.apply(&d, g.cfg.Now())
	switch age := time.Since(g.seenAt); {
	case g.gone != nil:
		d.Usable, d.Reason, d.Used = false, goneWords(g.gone), nil
		d.GPU = &capacity.GPUState{Driver: state.Driver, Architecture: state.Architecture, Encoders: &n}
	case age > staleAfter:
		d.Usable, d.Reason, d.Used = false, fmt.Sprintf("NVML has not answered for %d s", int(age.Seconds())), nil
	}
	return d
}

// engine is the speed of one engine in px/s and where it is from.
func (g *gpu) engine() (px int64, source string, ok bool) {
	if g.kept.PxPerS > 0 {
		if g.measured {
			return g.kept.PxPerS, sourceCalibrated, true
		}
		return g.kept.PxPerS, sourceCached, true
	}
	px, ok = enginePxPerS(g.name, g.architecture())
	return px, sourceTable, ok
}
