// Package bench is `dionysia bench`: it measures this host's devices by hand.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/dionysia-dev/dionysia/worker/device"
	"github.com/dionysia-dev/dionysia/worker/gpac"
	"github.com/dionysia-dev/dionysia/worker/transcode"
)

// Transcode is `dionysia bench transcode`. Its flags are the worker's.
type Transcode struct {
	GPAC        string `name:"gpac" help:"GPAC's program." default:"gpac" env:"DIONYSIA_GPAC"`
	GPACUser    string `name:"gpac-user" help:"User that GPAC runs as when this is run by root." default:"nobody" env:"DIONYSIA_GPAC_USER"`
	CacheDir    string `help:"Where the results are kept for the worker's next start." default:"/var/lib/dionysia/cache" env:"DIONYSIA_WORKER_CACHE_DIR" type:"path"`
	NVMLLibrary string `name:"nvml-library" help:"Path of NVIDIA's libnvidia-ml.so.1, empty for the system's, or off to look for no GPU." default:"" env:"DIONYSIA_NVML_LIBRARY"`
	Sessions    int    `name:"encoder-sessions" help:"Encoder sessions that the host's GeForce cards may hold together; 0 is what the driver is known to allow, -1 no cap." default:"0" env:"DIONYSIA_ENCODER_SESSIONS"`
	Output      string `name:"output" short:"o" enum:"table,json" default:"table" help:"table or json (${default})."`
}

// Help says what is measured.
func (Transcode) Help() string {
	return `Each device encodes for some seconds with GPAC: it needs an otherwise idle host, and no worker that transcodes on it.

MPX/S is what the device encodes, in millions of pixels per second: of x264's veryfast on a CPU, of NVENC's H.264 at preset P3 on a GPU. BUDGET is what placements may use of it. The rest of the columns are how many single renditions of that size, at 30 frames per second, fit in the budget at real time, within the driver's cap of sessions on GeForce cards; decoding and scaling the source come on top and are the CPU's.`
}

// size is a picture whose sessions at 30 frames per second are counted.
type size struct {
	name          string
	width, height int64
}

func sizes() []size {
	return []size{{"1080p30", 1920, 1080}, {"720p30", 1280, 720}, {"480p30", 854, 480}, {"360p30", 640, 360}}
}

// Result is a device's measurements as they are printed.
type Result struct {
	Device string `json:"device"`
	Name   string `json:"name"`
	Usable bool   `json:"usable"`
	// Reason says why it is not usable.
	Reason string   `json:"reason,omitempty"`
	Codecs []string `json:"codecs"`
	// PxPerS and Budget in px/s, nil when they are not known.
	PxPerS *int64 `json:"px_s,omitempty"`
	Budget *int64 `json:"budget_px_s,omitempty"`
	// Source is calibrated or table.
	Source string `json:"source,omitempty"`
	// Equivalents is PxPerS in renditions of 1080p30.
	Equivalents *float64 `json:"equivalents_1080p30,omitempty"`
	// Sessions at real time within the budget, by the size of one rendition.
	Sessions map[string]int64 `json:"sessions,omitempty"`
}

func result(r device.Result) Result {
	out := Result{Device: r.Device, Name: r.Name, Usable: r.Reason == "", Reason: r.Reason, Codecs: r.Codecs}
	if out.Codecs == nil {
		out.Codecs = []string{}
	}
	if !out.Usable {
		return out
	}
	out.PxPerS, out.Budget, out.Source, out.Equivalents = &r.PxPerS, &r.Budget, r.Source, &r.Equivalents
	out.Sessions = map[string]int64{}
	for _, s := range sizes() {
		n := r.Budget / (s.width * s.height * 30)
		if r.SessionCap > 0 {
			n = min(n, int64(r.SessionCap))
		}
		out.Sessions[s.name] = n
	}
	return out
}

// Run measures every device and prints what was found; progress gets a line for
// each step.
func (b Transcode) Run(ctx context.Context, stdout, progress io.Writer) error {
	version, err := gpac.Detect(ctx, b.GPAC)
	if err != nil {
		return fmt.Errorf("--gpac: %w", err)
	}
	jail, err := transcode.NewJail(b.GPACUser)
	if err != nil {
		return fmt.Errorf("--gpac-user: %w", err)
	}
	measured, err := device.Benchmark(ctx, device.Config{
		GPAC: b.GPAC, GPACVersion: version, CacheDir: b.CacheDir, NVML: b.NVMLLibrary, SessionLimit: b.Sessions,
		Run: transcode.Runner(jail, b.GPAC),
	}, func(line string) { _, _ = fmt.Fprintln(progress, line) })
	if err != nil {
		return fmt.Errorf("measuring the devices: %w", err)
	}
	results := make([]Result, len(measured))
	for i, r := range measured {
		results[i] = result(r)
	}
	if b.Output == "json" {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(results)
	} else {
		err = table(stdout, results)
	}
	if err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}

// table prints a line for each device; what is not known is a ?.
func table(out io.Writer, results []Result) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	head := []string{"DEVICE", "NAME", "CODECS", "MPX/S", "BUDGET (MPX/S)", "× 1080P30"}
	for _, s := range sizes() {
		head = append(head, strings.ToUpper(s.name))
	}
	_, _ = fmt.Fprintln(w, strings.Join(append(head, "SOURCE"), "\t")) // Flush returns the error
	for _, r := range results {
		row := []string{r.Device, r.Name, strings.Join(r.Codecs, ",")}
		if len(r.Codecs) == 0 {
			row[2] = "-"
		}
		row = append(row, mega(r.PxPerS), mega(r.Budget), oneDecimal(r.Equivalents))
		for _, s := range sizes() {
			if n, ok := r.Sessions[s.name]; ok {
				row = append(row, strconv.FormatInt(n, 10))
			} else {
				row = append(row, "?")
			}
		}
		if r.Usable {
			row = append(row, r.Source)
		} else {
			row = append(row, "not usable: "+r.Reason)
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

func mega(n *int64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatFloat(float64(*n)/1e6, 'f', 2, 64)
}

func oneDecimal(f *float64) string {
	if f == nil {
		return "?"
	}
	return strconv.FormatFloat(*f, 'f', 1, 64)
}
