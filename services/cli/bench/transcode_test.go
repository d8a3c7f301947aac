package bench

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/worker/device"
)

func TestResults(t *testing.T) {
	var out bytes.Buffer
	if err := table(&out, []Result{
		result(device.Result{Device: "cpu", Name: "Some CPU", Codecs: []string{"h264"}, PxPerS: 200_000_000, Budget: 150_000_000, Source: "calibrated", Sessions: 2, Equivalents: 3.215}),
		result(device.Result{Device: "gpu-1", Name: "GeForce", Codecs: []string{"h264", "hevc"}, PxPerS: 2_500_000_000, Budget: 2_000_000_000, Source: "table",
			Sessions: 8, SessionCap: 8, Equivalents: 40.2}),
		result(device.Result{Device: "gpu-2", Name: "A100", Reason: "it has no NVENC"}),
	}); err != nil {
		t.Fatal(err)
	}
	want := `DEVICE  NAME      CODECS     MPX/S    BUDGET (MPX/S)  × 1080P30  1080P30  720P30  480P30  360P30  SOURCE
cpu     Some CPU  h264       200.00   150.00          3.2        2        5       12      21      calibrated
gpu-1   GeForce   h264,hevc  2500.00  2000.00         40.2       8        8       8       8       table
gpu-2   A100      -          ?        ?               ?          ?        ?       ?       ?       not usable: it has no NVENC
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestTranscode measures this host's CPU with the real GPAC.
func TestTranscode(t *testing.T) {
	gpac := testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	cmd := Transcode{GPAC: gpac, GPACUser: "nobody", CacheDir: t.TempDir(), NVMLLibrary: device.NVMLOff, Output: "json"}
	var out, progress bytes.Buffer
	if err := cmd.Run(t.Context(), &out, &progress); err != nil {
		t.Fatal(err)
	}
	var results []Result
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if len(results) != 1 || results[0].Device != "cpu" || !results[0].Usable || *results[0].PxPerS < 1e6 || *results[0].Budget > *results[0].PxPerS ||
		results[0].Sessions["360p30"] < results[0].Sessions["1080p30"] {
		t.Errorf("%s", out.String())
	}
	if !strings.Contains(progress.String(), "cpu") {
		t.Errorf("progress %q", progress.String())
	}
}

func TestWhatIsWrong(t *testing.T) {
	var out bytes.Buffer
	none := filepath.Join(t.TempDir(), "none")
	err := Transcode{GPAC: none, CacheDir: t.TempDir(), NVMLLibrary: device.NVMLOff}.Run(t.Context(), &out, &out)
	if err == nil || !strings.Contains(err.Error(), "--gpac") || !strings.Contains(err.Error(), none) {
		t.Errorf("%v", err)
	}
	gpac := testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	err = Transcode{GPAC: gpac, CacheDir: t.TempDir(), NVMLLibrary: device.NVMLOff, Sessions: -2}.Run(t.Context(), &out, &out)
	if err == nil || !strings.Contains(err.Error(), "sessions") {
		t.Errorf("%v", err)
	}
}
