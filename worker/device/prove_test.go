package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/internal/testkit/nvmlstub"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// Debian's GPAC has no NVENC: the card is not usable, and says so from the start.
func TestGPACWithoutNVENC(t *testing.T) {
	if !alone(t) {
		return
	}
	stub := nvmlstub.Build(t)
	stub.Set(nvmlstub.L4(1))
	m := manager(t, Config{NVML: stub.Library()}) // runs GPAC itself
	d := await(t, m, nvmlstub.ID(1), "refused", refusedFor("GPAC has no h264_nvenc: [FFEnc] No codecid specified"))
	if len(d.Codecs) != 0 {
		t.Errorf("codecs %v", d.Codecs)
	}
}

func TestWithoutGPAC(t *testing.T) {
	if !alone(t) {
		return
	}
	stub := nvmlstub.Build(t)
	stub.Set(nvmlstub.L4(1))
	m, err := NewManager(Config{NVML: stub.Library(), CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	m.Start(t.Context())
	defer m.Stop()
	await(t, m, nvmlstub.ID(1), "refused", refusedFor(noGPAC))
	await(t, m, CPUID, "refused", refusedFor(noGPAC))
}

func TestProofsAreKept(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, dir := nvmlstub.Build(t), t.TempDir()
	stub.Set(nvmlstub.L4(1))
	boot := func(version string, enc *encoders) *Manager {
		return manager(t, Config{NVML: stub.Library(), CacheDir: dir, Run: enc.Run, GPACVersion: gpac.Version{Major: 1, Text: version}})
	}
	first := softwareEncoders(t)
	m := boot("1.0.1", first)
	await(t, m, nvmlstub.ID(1), "usable", usable)
	m.Stop()

	// The next boot takes what was proven, and tries what was not again.
	second := softwareEncoders(t)
	m = boot("1.0.1", second)
	await(t, m, nvmlstub.ID(1), "usable", usable)
	testkit.Eventually(t, patience, "another try of AV1", func() error {
		if got := second.tries(); !slices.Equal(got, []string{"av1_nvenc"}) {
			return errors.New(strings.Join(got, " "))
		}
		return nil
	})
	m.Stop()

	// With another GPAC nothing is proven.
	third := softwareEncoders(t)
	third.refuse("Cannot load libcuda.so.1")
	m = boot("2.4", third)
	await(t, m, nvmlstub.ID(1), "refused", refusedFor("GPAC can't encode with h264_nvenc: [FFEnc] Cannot load libcuda.so.1"))
	m.Stop()

	// What failed is tried at the next boot.
	fourth := softwareEncoders(t)
	m = boot("2.4", fourth)
	await(t, m, nvmlstub.ID(1), "usable", usable)
	m.Stop()
}

// What an earlier boot proved counts at once; when a run then can't open the
// encoder, the device has to prove itself, and can't.
func TestProvenBeforeAndBrokenNow(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, dir, now := nvmlstub.Build(t), t.TempDir(), newClock()
	card := nvmlstub.L4(1)
	stub.Set(card)
	stub.Proven(dir, "1.0.1", card, "h264", "hevc", "av1")
	m := manager(t, Config{NVML: stub.Library(), CacheDir: dir, Now: now.Now}) // Debian's GPAC
	d := await(t, m, nvmlstub.ID(1), "usable", usable)
	if !slices.Equal(d.Codecs, []string{"h264", "hevc", "av1"}) {
		t.Errorf("codecs %v", d.Codecs)
	}
	m.Learn(nvmlstub.ID(1), Failure{Kind: OpenFailed, Detail: "[FFEnc] No codecid specified"})
	await(t, m, nvmlstub.ID(1), "refused", refusedFor("open failed: [FFEnc] No codecid specified"))
	now.add(openFirst)
	await(t, m, nvmlstub.ID(1), "refused", refusedFor("GPAC has no h264_nvenc"))
	m.Stop()
	m = manager(t, Config{NVML: stub.Library(), CacheDir: dir})
	await(t, m, nvmlstub.ID(1), "refused after a restart", refusedFor("GPAC has no h264_nvenc"))
}

func TestLearning(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc, now := nvmlstub.Build(t), softwareEncoders(t), newClock()
	card := nvmlstub.RTX4090(1).With("sessions", 5).With("memory_used", 20<<30)
	stub.Set(card)
	m := manager(t, Config{NVML: stub.Library(), Run: enc.Run, Now: now.Now})
	id := nvmlstub.ID(1)
	await(t, m, id, "usable", usable)
	report := func() capacity.Report {
		var r capacity.Report
		m.Fill(&r)
		return r
	}

	m.Learn(id, Failure{Kind: TooSlow, Detail: "0.8 of real time", InUse: 1e9})
	d, _ := m.Device(id)
	if *d.Capacity != 9e8 || d.CapacitySource != "learned" || *d.SessionMax != 9e8 || !d.Usable || len(d.Learned) != 1 || d.Learned[0].Until != now.Now().Add(learnedFor) {
		t.Errorf("too slow: %+v", d)
	}
	m.Learn(id, Failure{Kind: SessionCap, Detail: "incompatible client key"})
	if r := report(); *r.SessionLimit != 5 {
		t.Errorf("session cap: %d", *r.SessionLimit)
	}
	m.Learn(id, Failure{Kind: OutOfMemory, Detail: "CUDA_ERROR_OUT_OF_MEMORY"})
	if l, ok := report().Limit(capacity.MemoryResource(id)); !ok || l.Limit != 19<<30 {
		t.Errorf("out of memory: %+v, want %d", l, 19<<30)
	}
	// NVML's sample is from before the failure: the worker knows of more.
	m.Learn(id, Failure{Kind: SessionCap, Sessions: 7, Detail: "incompatible client key"})
	if r := report(); *r.SessionLimit != 5 {
		t.Errorf("a later figure raised what was learned: %d", *r.SessionLimit)
	}
	now.add(learnedFor)
	memory := int64(21 << 30)
	m.Learn(id, Failure{Kind: SessionCap, Sessions: 7, Detail: "incompatible client key"})
	m.Learn(id, Failure{Kind: OutOfMemory, Memory: memory, Detail: "CUDA_ERROR_OUT_OF_MEMORY"})
	if l, _ := report().Limit(capacity.MemoryResource(id)); *report().SessionLimit != 7 || l.Limit != int64(float64(memory)*learnedMemoryShare) {
		t.Errorf("%d sessions, memory %+v", *report().SessionLimit, l)
	}
	now.add(learnedFor)
	r := report()
	d, _ = r.Device(id)
	if l, _ := r.Limit(capacity.MemoryResource(id)); *d.Capacity != ada2Budget || *r.SessionLimit != 8 || l.Limit <= 19<<30 || d.Learned != nil {
		t.Errorf("after it was forgotten: %+v, %d sessions, memory %+v", d, *r.SessionLimit, l)
	}

	// The encoder can't be opened: not usable, then it proves itself.
	tries := len(enc.tries())
	m.Learn(id, Failure{Kind: OpenFailed, Detail: "[FFEnc] failed to open codec context"})
	await(t, m, id, "refused", refusedFor("open failed: [FFEnc] failed to open codec context"))
	enc.refuse("still broken")
	now.add(openFirst)
	await(t, m, id, "refused", refusedFor("GPAC can't encode with h264_nvenc: [FFEnc] still broken"))
	enc.refuse("")
	now.add(proveAgain)
	await(t, m, id, "proven again", usable)
	if len(enc.tries()) <= tries+3 {
		t.Errorf("tried %v", enc.tries()[tries:])
	}
	m.Learn("gpu-none", Failure{Kind: OpenFailed})
	m.Learn(CPUID, Failure{Kind: TooSlow, InUse: 1e8})
	if d, _ := m.Device(CPUID); *d.Capacity != 9e7 {
		t.Errorf("the CPU: %+v", d)
	}
}

func TestBenchmark(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc, dir := nvmlstub.Build(t), softwareEncoders(t), t.TempDir()
	card := nvmlstub.L4(1) // one engine, for the sake of these machines
	card.Name, card.Arch = "NVIDIA Tesla T4", nvmlstub.Turing
	delete(card.Values, "capacity_hevc")
	stub.Set(card, nvmlstub.A100(2))
	cfg := Config{NVML: stub.Library(), CacheDir: dir, GPAC: testkit.Part(t, "DIONYSIA_GPAC", "gpac"), GPACVersion: gpac.Version{Major: 1, Text: "1.0.1"}, Run: enc.Run}
	var lines []string
	results, err := Benchmark(context.Background(), cfg, func(line string) { lines = append(lines, line) })
	t.Log(strings.Join(lines, "\n"))
	if err != nil || len(results) != 3 {
		t.Fatalf("%v, %v", results, err)
	}
	cpu, gpu, none := results[0], results[1], results[2]
	if cpu.PxPerS < 1e6 || cpu.Sessions != int(cpu.Budget/(1920*1080*30)) || cpu.Source != "calibrated" {
		t.Errorf("%+v", cpu)
	}
	if gpu.PxPerS < 1e6 || gpu.Source != "calibrated" || gpu.Reason != "" || gpu.Budget >= gpu.PxPerS || gpu.Equivalents < 0.1 {
		t.Errorf("%+v", gpu)
	}
	if !strings.Contains(none.Reason, "has no NVENC") || none.PxPerS != 0 {
		t.Errorf("%+v", none)
	}
	// A worker that starts then has it all.
	cfg.CPUCapacity = 0
	cfg.Run = func(context.Context, string, gpac.Command) ([]byte, time.Duration, error) {
		t.Error("it encodes")
		return nil, 0, os.ErrInvalid
	}
	// AV1, which has failed, is left out, so that nothing is to be tried.
	delete(card.Values, "capacity_av1")
	stub.Set(card, nvmlstub.A100(2))
	m, err := NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Start(t.Context())
	defer m.Stop()
	d := await(t, m, nvmlstub.ID(1), "usable", usable)
	if *d.Capacity != gpu.Budget || d.CapacitySource != "cached" {
		t.Errorf("%+v; measured %+v", d, gpu)
	}
	c := await(t, m, CPUID, "with a capacity", func(d capacity.Device) bool { return d.Capacity != nil })
	if *c.Capacity != cpu.Budget || c.CapacitySource != "cached" {
		t.Errorf("%+v; measured %+v", c, cpu)
	}
}

func TestEncodeChecksWhatWasMade(t *testing.T) {
	program := testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	test := gpac.TestEncode{Codec: "h264", Width: 64, Height: 48, Frames: 5, Sessions: 2}
	if cpu, wall, err := encode(t.Context(), runDirectly(program), test); err != nil || cpu <= 0 || wall <= 0 {
		t.Fatalf("%s, %s, %v", cpu, wall, err)
	}
	for _, c := range []struct {
		name, want string
		run        Runner
	}{
		{"another codec", "its output is avc1, not hevc", func(ctx context.Context, dir string, cmd gpac.Command) ([]byte, time.Duration, error) {
			for i, a := range cmd.Args {
				cmd.Args[i] = strings.NewReplacer("hevc_nvenc", "libx264", ":preset=p3:tune=ll", "", ":gpu=0", "").Replace(a)
			}
			return runDirectly(program)(ctx, dir, cmd)
		}},
		{"nothing", "it wrote nothing", func(context.Context, string, gpac.Command) ([]byte, time.Duration, error) { return nil, 0, nil }},
		{"rubbish", "can't be read", func(_ context.Context, dir string, _ gpac.Command) ([]byte, time.Duration, error) {
			return nil, 0, os.WriteFile(filepath.Join(dir, gpac.TestOutput(0)), []byte("not an MP4 file at all"), 0o600)
		}},
		{"too few", "has not all 6 frames", func(ctx context.Context, dir string, cmd gpac.Command) ([]byte, time.Duration, error) {
			cmd.Files["in.yuv"] = cmd.Files["in.yuv"][:len(cmd.Files["in.yuv"])/2]
			for i, a := range cmd.Args {
				cmd.Args[i] = strings.NewReplacer("hevc_nvenc", "libx265", ":preset=p3:tune=ll", "", ":gpu=0", "").Replace(a)
			}
			return runDirectly(program)(ctx, dir, cmd)
		}},
		{"no program", "no such file", runDirectly("/nonexistent/gpac")},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := gpac.TestEncode{Codec: "hevc", GPU: nvmlstub.ID(1), Width: 160, Height: 96, Frames: 6, Sessions: 1}
			if _, _, err := encode(t.Context(), c.run, test); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "dionysia-encode*")); len(left) > 0 {
		t.Logf("temporary directories: %v (another test's, or left behind)", left)
	}
}
