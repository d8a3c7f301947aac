package device

import (
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

func TestCalibrateOnceWithGPAC(t *testing.T) {
	gpac, kept, cpu := runDirectly(testkit.Part(t, "DIONYSIA_GPAC", "gpac")), cache{t.TempDir(), hclog.NewNullLogger()}, ProbeCPU()
	none := runDirectly("/nonexistent/gpac")
	px, fromCache, err := calibrateCPU(t.Context(), gpac, kept, "1", cpu)
	if err != nil || fromCache || px < 1_000_000 {
		t.Fatalf("got %d px/s, cache %v, %v", px, fromCache, err)
	}
	t.Logf("%d px/s on %d cores", px, cpu.Cores)
	again, fromCache, err := calibrateCPU(t.Context(), none, kept, "1", cpu)
	if err != nil || !fromCache || again != px {
		t.Fatalf("from the cache: got %d, %v, %v; want %d", again, fromCache, err, px)
	}
	if _, _, err := calibrateCPU(t.Context(), none, kept, "2", cpu); err == nil {
		t.Fatal("another GPAC version took the cached result")
	}
}

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, in    string
		busy, total uint64
		ok          bool
	}{
		{"full", "cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 1 1 1\n", 81, 531, true},
		{"no cpu", "intr 1 2 3 4 5", 0, 0, false},
		{"empty", "", 0, 0, false},
		{"not a number", "cpu 1 2 x 4 5", 0, 0, false},
	} {
		busy, total, err := parseStat(c.in)
		if busy != c.busy || total != c.total || (err == nil) != c.ok {
			if c.ok || err == nil {
				t.Errorf("%s: got %d, %d, %v", c.name, busy, total, err)
			}
		}
	}
}

func TestProcessCPU(t *testing.T) {
	before, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for x := 1; ; x++ {
		if now, err := ProcessCPU(os.Getpid()); err != nil {
			t.Fatal(err)
		} else if now > before {
			return
		}
	}
}

func TestLoadMeter(t *testing.T) {
	var m loadMeter
	if _, ok := m.sample(); ok {
		t.Fatal("a first sample has no interval")
	}
	testkit.Eventually(t, 10e9, "a load", func() error {
		if v, ok := m.sample(); ok && (v < 0 || v > 1) {
			t.Fatalf("load %f", v)
		} else if ok {
			return nil
		}
		return os.ErrDeadlineExceeded
	})
}
