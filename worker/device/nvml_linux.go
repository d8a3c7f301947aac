//go:build linux && cgo

package device

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

const defaultLibrary = "libnvidia-ml.so.1"

// process is the library of this process. Its functions are found by the dynamic
// linker, by name and once for all: there can be only one, whatever is closed.
var process struct {
	sync.Mutex
	path string
	lib  nvml.Interface
}

// loadLibrary loads the library at path, once for the process.
func loadLibrary(path string) (nvml.Interface, error) {
	process.Lock()
	defer process.Unlock()
	if process.lib != nil {
		if process.path != path {
			return nil, fmt.Errorf("%w: this process has loaded %s already", errNoLibrary, process.path)
		}
		return process.lib, nil
	}
	// go-nvml calls nvmlInit as soon as it has loaded the library, and a call of a
	// function that is not there ends the process: look first. The handle is kept,
	// so that the library stays where its functions were found.
	library := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := library.Open(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLibrary, err)
	}
	for _, either := range [][]string{{"nvmlInit_v2", "nvmlInit"}, {"nvmlShutdown"}, {"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
		{"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"}, {"nvmlDeviceGetUUID"}} {
		if !slices.ContainsFunc(either, func(name string) bool { return library.Lookup(name) == nil }) {
			return nil, fmt.Errorf("%w: %s has no %s", errNoLibrary, path, either[0])
		}
	}
	process.path, process.lib = path, nvml.New(nvml.WithLibraryPath(path))
	return process.lib, nil
}

// goNVML is the driver through go-nvml.
type goNVML struct {
	path string
	lib  nvml.Interface
}

func newDriver(path string) driver { return &goNVML{path: cmp.Or(path, defaultLibrary)} }

func (g *goNVML) open() (string, error) {
	lib, err := loadLibrary(g.path)
	if err != nil {
		return "", err
	}
	g.lib = lib
	if r := lib.Init(); r != nvml.SUCCESS {
		return "", g.fail("nvmlInit", r)
	}
	version := ""
	if g.has("nvmlSystemGetDriverVersion") {
		if v, r := lib.SystemGetDriverVersion(); r == nvml.SUCCESS {
			version = v
		}
	}
	return version, nil
}

func (g *goNVML) close() {
	if g.lib != nil {
		_ = g.lib.Shutdown() // it fails when the driver is gone already
	}
}

// has says whether the library has a function. Only such may be called.
func (g *goNVML) has(name string) bool { return g.lib.Extensions().LookupSymbol(name) == nil }

// fail is r as an error, in the library's own words.
func (g *goNVML) fail(call string, r nvml.Return) error {
	words := fmt.Sprintf("error %d", int32(r))
	if g.has("nvmlErrorString") {
		words = r.Error()
	}
	kind := errNVML
	switch r {
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		kind = errNoLibrary
	case nvml.ERROR_DRIVER_NOT_LOADED:
		kind = errNoDriver
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		kind = errMismatch
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_UNINITIALIZED, nvml.ERROR_RESET_REQUIRED:
		kind = errGone
	}
	return fmt.Errorf("%w: %s: %s", kind, call, words)
}

func (g *goNVML) count() (int, error) {
	n, r := g.lib.DeviceGetCount()
	if r != nvml.SUCCESS {
		return 0, g.fail("nvmlDeviceGetCount", r)
	}
	return n, nil
}

func (g *goNVML) card(index int) (card, error) {
	d, r := g.lib.DeviceGetHandleByIndex(index)
	if r != nvml.SUCCESS {
		return card{}, gone(g.fail("nvmlDeviceGetHandleByIndex", r))
	}
	uuid, r := d.GetUUID()
	if r != nvml.SUCCESS {
		return card{}, gone(g.fail("nvmlDeviceGetUUID", r))
	}
	c, named := card{id: strings.ToLower(uuid), name: "NVIDIA GPU"}, false
	if g.has("nvmlDeviceGetName") {
		if name, r := d.GetName(); r == nvml.SUCCESS {
			c.name, named = name, true
		}
	}
	c.state = func() (capacity.GPUState, error) { return g.state(d, index, c.name, named) }
	return c, nil
}

// state asks for all fields. One that fails is unknown; only a card that is gone
// is an error.
func (g *goNVML) state(d nvml.Device, index int, name string, named bool) (capacity.GPUState, error) {
	// UUIDs may be answered from memory: the queries below tell too.
	if _, r := d.GetUUID(); r != nvml.SUCCESS {
		return capacity.GPUState{}, gone(g.fail("nvmlDeviceGetUUID", r))
	}
	s := capacity.GPUState{Index: &index}
	q := query{g: g}
	q.ask("nvmlDeviceGetArchitecture", func() (r nvml.Return) {
		a, r := d.GetArchitecture()
		if text, ok := architectures[uint32(a)]; ok {
			s.Architecture = &text
		}
		return r
	})
	if limited := strings.Contains(name, "GeForce"); named {
		s.SessionLimited = &limited
	}
	q.ask("nvmlDeviceGetBrand", func() nvml.Return {
		b, r := d.GetBrand()
		if limited := b == nvml.BRAND_GEFORCE || b == nvml.BRAND_GEFORCE_RTX; limited || s.SessionLimited == nil {
			set(r, &s.SessionLimited, limited)
		}
		return r
	})
	q.askAny([]string{"nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo"}, func() nvml.Return {
		p, r := d.GetPciInfo()
		if bus := text(p.BusId[:]); r == nvml.SUCCESS && bus != "" {
			s.PCIBus = &bus
		}
		return r
	})
	q.ask("nvmlDeviceGetMigMode", func() nvml.Return {
		current, _, r := d.GetMigMode()
		on := current == nvml.DEVICE_MIG_ENABLE
		set(r, &s.MIG, on)
		return r
	})
	q.ask("nvmlDeviceGetMemoryInfo", func() nvml.Return {
		m, r := d.GetMemoryInfo()
		set(r, &s.MemoryTotal, int64(m.Total))
		set(r, &s.MemoryUsed, int64(m.Used))
		return r
	})
	q.ask("nvmlDeviceGetPowerUsage", func() nvml.Return {
		mw, r := d.GetPowerUsage()
		set(r, &s.Power, float64(mw)/1000)
		return r
	})
	q.ask("nvmlDeviceGetTemperature", func() nvml.Return {
		t, r := d.GetTemperature(nvml.TEMPERATURE_GPU)
		set(r, &s.Temperature, int(t))
		return r
	})
	g.clocks(&q, d, &s)
	g.encoders(&q, d, &s)
	return s, q.gone
}

func (g *goNVML) clocks(q *query, d nvml.Device, s *capacity.GPUState) {
	name, get := "nvmlDeviceGetCurrentClocksEventReasons", d.GetCurrentClocksEventReasons
	if !g.has(name) { // its name until R535
		name, get = "nvmlDeviceGetCurrentClocksThrottleReasons", d.GetCurrentClocksThrottleReasons
	}
	q.ask(name, func() nvml.Return {
		mask, r := get()
		if r == nvml.SUCCESS {
			s.ClockReasons = clockReasonNames(mask)
		}
		return r
	})
}

func (g *goNVML) encoders(q *query, d nvml.Device, s *capacity.GPUState) {
	q.ask("nvmlDeviceGetEncoderUtilization", func() nvml.Return {
		pct, _, r := d.GetEncoderUtilization()
		set(r, &s.EncoderUtilization, int(pct))
		return r
	})
	q.ask("nvmlDeviceGetDecoderUtilization", func() nvml.Return {
		pct, _, r := d.GetDecoderUtilization()
		set(r, &s.DecoderUtilization, int(pct))
		return r
	})
	g.encoderCapacity(q, d, s)
	q.ask("nvmlDeviceGetEncoderStats", func() nvml.Return {
		n, fps, us, r := d.GetEncoderStats()
		set(r, &s.SessionCount, n)
		set(r, &s.AverageFPS, int(fps))
		set(r, &s.AverageLatency, int(us))
		return r
	})
	q.ask("nvmlDeviceGetEncoderSessions", func() nvml.Return {
		list, r := d.GetEncoderSessions()
		if r != nvml.SUCCESS {
			return r
		}
		s.Sessions = make([]capacity.EncoderSession, 0, len(list))
		for _, e := range list {
			codec := "unknown"
			if int(e.CodecType) < len(codecs) {
				codec = codecs[e.CodecType]
			}
			s.Sessions = append(s.Sessions, capacity.EncoderSession{PID: int(e.Pid), Codec: codec,
				Width: int(e.HResolution), Height: int(e.VResolution), FPS: int(e.AverageFps)})
		}
		return r
	})
}

// encoderCapacity asks for each codec. Unless all answer, though it be that they
// are not supported, the whole is unknown: a codec that is missing from it is one
// that the card does not encode.
func (g *goNVML) encoderCapacity(q *query, d nvml.Device, s *capacity.GPUState) {
	free, answers := map[string]int{}, 0
	for i, codec := range codecs {
		q.ask("nvmlDeviceGetEncoderCapacity", func() nvml.Return {
			pct, r := d.GetEncoderCapacity(nvml.EncoderType(i))
			switch r {
			case nvml.SUCCESS:
				free[codec] = pct
				answers++
			case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_INVALID_ARGUMENT: // a driver that knows no AV1 says so
				answers++
			}
			return r
		})
	}
	if answers == len(codecs) {
		s.EncoderCapacity = free
	}
}

// query makes queries, until one tells that the card is gone.
type query struct {
	g    *goNVML
	gone error
}

func (q *query) ask(name string, call func() nvml.Return) { q.askAny([]string{name}, call) }

// askAny calls when the library has one of the functions, which are the versions
// of one that go-nvml chooses from.
func (q *query) askAny(names []string, call func() nvml.Return) {
	if q.gone != nil || !slices.ContainsFunc(names, q.g.has) {
		return
	}
	if r := call(); r != nvml.SUCCESS {
		if err := q.g.fail(names[0], r); errors.Is(err, errGone) || errors.Is(err, errNoDriver) {
			q.gone = gone(err)
		}
	}
}

// set makes a field known when the query succeeded.
func set[T any](r nvml.Return, field **T, v T) {
	if r == nvml.SUCCESS {
		*field = &v
	}
}

func text(b []int8) string {
	var out []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return strings.ToLower(string(out))
}
