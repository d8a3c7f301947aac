package device

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/internal/testkit/nvmlstub"
	"github.com/dionysia-dev/dionysia/services/capacity"
)

func ptr[T any](v T) *T { return &v }

// Capacities by the table: engines × fps of P3 × 1920×1080 × headroom.
const (
	adaEngine    = 647 * 1920 * 1080
	ada2Budget   = adaEngine * 2 * 8 / 10
	adaEngineMax = adaEngine * 8 / 10
)

func TestCards(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, reg := nvmlstub.Build(t), prometheus.NewRegistry()
	geforce := nvmlstub.RTX4090(1)
	geforce.Sessions = []nvmlstub.Session{{PID: 4242, Codec: 1, Width: 1280, Height: 720, FPS: 30, LatencyUS: 900}, {PID: 4243, Codec: 7}}
	geforce = geforce.With("sessions", 2).With("fps", 30).With("latency", 900).With("clocks", 0x45).With("encoder", 50).With("capacity_av1", 80)
	stub.Set(geforce, nvmlstub.L4(2), nvmlstub.A100(3), nvmlstub.MIG(4))
	m := manager(t, Config{NVML: stub.Library(), Run: softwareEncoders(t).Run, Registerer: reg})

	d := await(t, m, nvmlstub.ID(1), "usable", usable)
	want := capacity.Device{ID: nvmlstub.ID(1), Kind: capacity.GPU, Name: "NVIDIA GeForce RTX 4090", Usable: true, Codecs: []string{"h264", "hevc"},
		Capacity: ptr(int64(ada2Budget)), CapacitySource: "table", SessionMax: ptr(int64(adaEngineMax)), Used: ptr(int64(adaEngine)),
		GPU: &capacity.GPUState{Index: ptr(0), Architecture: ptr("Ada"), Driver: ptr("570.86.15"), PCIBus: ptr("00000000:01:00.0"),
			SessionLimited: ptr(true), MemoryTotal: ptr(int64(24 << 30)), MemoryUsed: ptr(int64(1 << 29)),
			EncoderUtilization: ptr(50), DecoderUtilization: ptr(0), EncoderCapacity: map[string]int{"h264": 100, "hevc": 100, "av1": 80},
			Encoders: ptr(2), SessionCount: ptr(2), AverageFPS: ptr(30), AverageLatency: ptr(900),
			Sessions: []capacity.EncoderSession{{PID: 4242, Codec: "hevc", Width: 1280, Height: 720, FPS: 30}, {PID: 4243, Codec: "unknown"}},
			Power:    ptr(61.5), Temperature: ptr(47), ClockReasons: []string{"sw_power_cap", "hw_thermal_slowdown"}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("the GeForce card: %s", diff)
	}
	l4 := await(t, m, nvmlstub.ID(2), "usable", usable)
	if *l4.GPU.SessionLimited || *l4.GPU.MIG || *l4.Capacity != ada2Budget || *l4.Used != 0 || len(l4.GPU.ClockReasons) != 0 || l4.GPU.ClockReasons == nil {
		t.Errorf("the L4: %+v %+v", l4, l4.GPU)
	}
	a100 := await(t, m, nvmlstub.ID(3), "refused", refusedFor("has no NVENC"))
	if a100.Capacity != nil || len(a100.Codecs) != 0 || *a100.GPU.Encoders != 0 || a100.GPU.MemoryTotal == nil {
		t.Errorf("the A100: %+v %+v", a100, a100.GPU)
	}
	mig := await(t, m, nvmlstub.ID(4), "usable", usable)
	if !*mig.GPU.MIG || mig.Used != nil || mig.GPU.EncoderUtilization != nil || *mig.GPU.Encoders != 1 {
		t.Errorf("the card with MIG: %+v %+v", mig, mig.GPU)
	}
	var r capacity.Report
	m.Fill(&r)
	if r.NVML != "ok" || r.SessionLimit == nil || *r.SessionLimit != 8 || r.SessionsUsed == nil || *r.SessionsUsed != 2 || len(r.Devices) != 5 {
		t.Errorf("NVML %q, sessions %v of %v, %d devices", r.NVML, r.SessionsUsed, r.SessionLimit, len(r.Devices))
	}
	checkMetrics(t, reg)

	// A query that fails is unknown, and nothing else changes.
	geforce.Errors = map[string]int{"temperature": 999, "sessions": 999, "memory": 4, "capacity_h264": 999}
	stub.Set(geforce, nvmlstub.L4(2), nvmlstub.A100(3), nvmlstub.MIG(4))
	d = await(t, m, nvmlstub.ID(1), "without what can't be told", func(d capacity.Device) bool { // one look may see some of it before the change
		return d.GPU.Temperature == nil && d.GPU.Sessions == nil && d.GPU.SessionCount == nil && d.GPU.MemoryTotal == nil && d.GPU.EncoderCapacity == nil
	})
	if !d.Usable || len(d.Codecs) != 2 || d.GPU.Power == nil || d.GPU.EncoderUtilization == nil {
		t.Errorf("with failing queries: %+v %+v", d, d.GPU)
	}
	if m.Fill(&r); r.SessionsUsed != nil || r.SessionLimit == nil {
		t.Errorf("sessions %v of %v, though NVML does not count them", r.SessionsUsed, r.SessionLimit)
	}
}

func checkMetrics(t *testing.T, reg *prometheus.Registry) {
	t.Helper()
	text := `
# HELP dionysia_worker_device_encoder_sessions Encoder sessions on the GPU, of all processes.
# TYPE dionysia_worker_device_encoder_sessions gauge
dionysia_worker_device_encoder_sessions{device="ID1"} 2
dionysia_worker_device_encoder_sessions{device="ID2"} 0
dionysia_worker_device_encoder_sessions{device="ID3"} 0
dionysia_worker_device_encoder_sessions{device="ID4"} 0
# HELP dionysia_worker_device_encoder_utilization_ratio Busy share of the GPU's NVENC engines.
# TYPE dionysia_worker_device_encoder_utilization_ratio gauge
dionysia_worker_device_encoder_utilization_ratio{device="ID1"} 0.5
dionysia_worker_device_encoder_utilization_ratio{device="ID2"} 0
dionysia_worker_device_encoder_utilization_ratio{device="ID3"} 0
# HELP dionysia_worker_device_usable 1 when runs may be placed on the device.
# TYPE dionysia_worker_device_usable gauge
dionysia_worker_device_usable{device="cpu"} 1
dionysia_worker_device_usable{device="ID1"} 1
dionysia_worker_device_usable{device="ID2"} 1
dionysia_worker_device_usable{device="ID3"} 0
dionysia_worker_device_usable{device="ID4"} 1
`
	for n := range 5 {
		text = strings.ReplaceAll(text, "ID"+string(rune('0'+n)), nvmlstub.ID(n))
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "dionysia_worker_device_encoder_sessions",
		"dionysia_worker_device_encoder_utilization_ratio", "dionysia_worker_device_usable"); err != nil {
		t.Error(err)
	}
}

func TestCardGoesAndReturns(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc, log := nvmlstub.Build(t), softwareEncoders(t), &logged{}
	one, two := nvmlstub.L4(1), nvmlstub.L4(2)
	stub.Set(one, two)
	m := manager(t, Config{NVML: stub.Library(), Run: enc.Run, Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
	await(t, m, nvmlstub.ID(1), "usable", usable)
	await(t, m, nvmlstub.ID(2), "usable", usable)
	tries := len(enc.tries())

	for _, c := range []struct {
		name   string
		happen func()
		reason string
	}{
		{"fell off the bus", func() { two.Lost = 15; stub.Set(one, two) }, "does not answer"},
		{"needs a reset", func() { two.Lost = 16; stub.Set(one, two) }, "does not answer"},
		{"is in an unknown state", func() { two.Lost = 999; stub.Set(one, two) }, "does not answer"},
		{"is no longer there", func() { stub.Set(one) }, "does"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.happen()
			d := await(t, m, nvmlstub.ID(2), "gone", refusedFor(c.reason))
			if strings.Count(d.Reason, errGone.Error()) != 1 {
				t.Errorf("the reason: %q", d.Reason)
			}
			if d.Used != nil || d.GPU.MemoryUsed != nil || d.GPU.Temperature != nil {
				t.Errorf("what is not known any more is still told: %+v %+v", d, d.GPU)
			}
			await(t, m, nvmlstub.ID(1), "usable as ever", usable) // what was heard of it may be old on a busy machine
			two.Lost = 0
			stub.Set(one, two)
			await(t, m, nvmlstub.ID(2), "back", func(d capacity.Device) bool { return d.Usable && d.GPU.MemoryUsed != nil })
		})
	}
	// The first reason is the query's own, until the driver was opened anew and lists the
	// card no longer.
	if said := "a GPU is gone: device=" + nvmlstub.ID(2) + ` name="NVIDIA L4" reason="the card does not answer: nvmlDeviceGet`; !strings.Contains(log.String(), said) {
		t.Errorf("it did not log %s:\n%s", said, log)
	}
	if n := len(enc.tries()) - tries; n > 0 {
		t.Errorf("%d more encodes: what was proven of the same card, driver and GPAC still holds", n)
	}
	// One more card than before.
	stub.Set(one, two)
	if _, ok := m.Device(nvmlstub.ID(3)); ok {
		t.Fatal("a third card")
	}
}

func TestDriverComesGoesAndReturns(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc := nvmlstub.Build(t), softwareEncoders(t)
	m := manager(t, Config{NVML: stub.Library(), Run: enc.Run})
	awaitNVML(t, m, "no driver: nvmlInit: Driver Not Loaded")
	var r capacity.Report
	if m.Fill(&r); len(r.Devices) != 1 || !r.Devices[0].Usable {
		t.Fatalf("without a driver: %+v", r.Devices)
	}
	stub.Set(nvmlstub.RTX4090(1))
	await(t, m, nvmlstub.ID(1), "usable", usable)
	tries := len(enc.tries())

	stub.Unload()
	await(t, m, nvmlstub.ID(1), "gone", refusedFor("no driver"))
	awaitNVML(t, m, "no driver")
	stub.Set(nvmlstub.RTX4090(1)) // loaded again, the same
	await(t, m, nvmlstub.ID(1), "back", usable)
	if len(enc.tries()) != tries {
		t.Errorf("the same driver was proven again: %v", enc.tries()[tries:])
	}

	stub.Unload()
	await(t, m, nvmlstub.ID(1), "gone", refusedFor("no driver"))
	stub.SetDriver("610.43")
	stub.Set(nvmlstub.RTX4090(1))
	await(t, m, nvmlstub.ID(1), "back", func(d capacity.Device) bool { return d.Usable && *d.GPU.Driver == "610.43" })
	if len(enc.tries()) == tries {
		t.Error("another driver was not proven")
	}
	if m.Fill(&r); *r.SessionLimit != 12 {
		t.Errorf("a limit of %d sessions", *r.SessionLimit)
	}

	stub.Unload()
	await(t, m, nvmlstub.ID(1), "gone", refusedFor("no driver"))
	stub.Set(nvmlstub.RTX4090(1))
	stub.FailInit(18)
	await(t, m, nvmlstub.ID(1), "of another driver", refusedFor("restart the worker"))
}

func TestLibraryComesLater(t *testing.T) {
	if !alone(t) {
		return
	}
	stub := nvmlstub.Build(t)
	stub.Set(nvmlstub.L4(1))
	hidden := stub.Library() + ".hidden"
	if err := os.Rename(stub.Library(), hidden); err != nil {
		t.Fatal(err)
	}
	m := manager(t, Config{NVML: stub.Library(), Run: softwareEncoders(t).Run})
	awaitNVML(t, m, "no library: "+stub.Library()+": cannot open shared object file")
	if d, _ := m.Device(CPUID); !d.Usable {
		t.Errorf("the CPU: %+v", d)
	}
	if err := os.Rename(hidden, stub.Library()); err != nil {
		t.Fatal(err)
	}
	await(t, m, nvmlstub.ID(1), "usable", usable)
	awaitNVML(t, m, "ok")
	// A process has one library.
	if _, err := newDriver("/elsewhere/libnvidia-ml.so.1").open(); err == nil || !strings.Contains(err.Error(), "has loaded") {
		t.Errorf("a second library: %v", err)
	}
}

func TestNotNVML(t *testing.T) {
	if !alone(t) {
		return
	}
	libc := "libc.so.6"
	m := manager(t, Config{NVML: libc, Run: softwareEncoders(t).Run})
	awaitNVML(t, m, "no library: libc.so.6 has no nvmlInit_v2")
}

func TestNVMLOff(t *testing.T) {
	m := manager(t, Config{NVML: NVMLOff})
	var r capacity.Report
	if m.Fill(&r); r.NVML != "" || len(r.Devices) != 1 || r.SessionLimit != nil || r.SessionsUsed != nil {
		t.Errorf("%+v", r)
	}
}

func TestOldLibrary(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc := nvmlstub.BuildOld(t), softwareEncoders(t)
	stub.SetDriver("525.60.11")
	stub.Set(nvmlstub.RTX4090(1).With("clocks", 0x4), nvmlstub.A100(2))
	m := manager(t, Config{NVML: stub.Library(), Run: enc.Run})
	d := await(t, m, nvmlstub.ID(1), "usable", usable)
	s := d.GPU
	if s.Architecture != nil || s.MIG != nil || s.EncoderCapacity != nil || s.SessionCount != nil || s.AverageFPS != nil || s.Sessions != nil {
		t.Errorf("what the library can't tell is told: %+v", s)
	}
	if s.EncoderUtilization == nil || s.Power == nil || !slices.Equal(s.ClockReasons, []string{"sw_power_cap"}) || *d.Capacity != ada2Budget {
		t.Errorf("what it can is not: %+v %+v", d, s)
	}
	// Codecs that NVML does not speak of are all tried.
	if got := enc.tries(); !slices.Equal(got, []string{"h264_nvenc", "hevc_nvenc", "av1_nvenc"}) || !slices.Equal(d.Codecs, []string{"h264", "hevc"}) {
		t.Errorf("tried %v, proven %v", got, d.Codecs)
	}
	await(t, m, nvmlstub.ID(2), "refused", refusedFor("has no NVENC"))
	var r capacity.Report
	if m.Fill(&r); r.SessionsUsed != nil || *r.SessionLimit != 3 {
		t.Errorf("sessions %v of %v", r.SessionsUsed, r.SessionLimit)
	}
}

func TestHangingDriver(t *testing.T) {
	if !alone(t) {
		return
	}
	stub := nvmlstub.Build(t)
	stub.Set(nvmlstub.L4(1))
	m := manager(t, Config{NVML: stub.Library(), Run: softwareEncoders(t).Run})
	await(t, m, nvmlstub.ID(1), "usable", usable)
	stub.Hang(true)
	// The driver answers nobody until the test lets it: a report that asked it would
	// never come.
	testkit.Eventually(t, patience, "no answer", func() error {
		var d capacity.Device
		inTime(t, "a report", func() { d, _ = m.Device(nvmlstub.ID(1)) })
		if !refusedFor("NVML has not answered for")(d) {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	stub.Hang(false)
	await(t, m, nvmlstub.ID(1), "back", usable)
	stub.Hang(true)
	testkit.Eventually(t, patience, "a call that hangs", func() error {
		if d, _ := m.Device(nvmlstub.ID(1)); d.Usable {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	inTime(t, "Stop", m.Stop)
	stub.Hang(false)
}

// inTime fails t when do does not return.
func inTime(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s waits for the driver", what)
	}
}
