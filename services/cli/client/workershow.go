package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// WorkerShowCmd is `dionysia worker show`.
type WorkerShowCmd struct {
	Flags
	ID string `arg:""`
}

// Run shows the worker.
func (cmd *WorkerShowCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	w, err := answer[wire.Worker](c.client.GetWorkerWithResponse(c.Ctx, cmd.ID))
	if err != nil {
		return err
	}
	return c.print(w, func(t *table) { printWorker(t, *w) })
}

func printWorker(t *table, w wire.Worker) {
	t.row("id", w.ID)
	t.row("host", w.Host)
	t.row("state", workerState(w))
	t.row("labels", labels(w))
	t.row("version", w.Version)
	t.row("gpac", w.Gpac)
	t.row("nvml", orDash(w.Nvml, text))
	t.row("origin", w.Origin)
	if w.NomadNode != nil {
		t.row("nomad node", *w.NomadNode)
	}
	t.row("clock error", orUnknown(w.ClockErrorMs, func(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }))
	t.row("last report", seconds(w.AgeSeconds)+" ago")
	if w.SessionLimit != nil {
		t.row("encoder sessions", ledger(resource(w.Resources, "nvenc-sessions")))
	}
	for _, d := range w.Devices {
		t.say("")
		printDevice(t, d)
	}
}

func printDevice(t *table, d wire.Device) {
	t.say("device %s: %s, %s", d.ID, d.Name, deviceState(d))
	t.row("  codecs", codecs(d))
	t.row("  capacity", orUnknown(d.CapacityPxS, px)+", "+orUnknown(d.CapacitySource, text))
	if d.SessionMaxPxS != nil {
		t.row("  one session", "at most "+px(*d.SessionMaxPxS))
	}
	if d.Cores != nil {
		t.row("  cores", fmt.Sprintf("%d, %s busy", *d.Cores, orUnknown(d.Load, func(l float64) string { return percent(int(l*100 + 0.5)) })))
	}
	t.row("  others use", orUnknown(d.OtherPxS, px))
	for _, r := range d.Resources {
		switch r.Unit {
		case "px/s":
			t.row("  held", ledger(r))
		case "bytes":
			t.row("  memory", ledger(r))
		}
	}
	for _, l := range d.Learned {
		t.row("  learned", fmt.Sprintf("%s until %s: %s", limited(l), clock(l.Until), l.Why))
	}
	if d.Gpu != nil {
		printGPU(t, *d.Gpu)
	}
	for _, id := range slices.Sorted(maps.Keys(d.Streams)) {
		t.row("  stream "+id, px(d.Streams[id]))
	}
}

// ledger is a resource in a line.
func ledger(r wire.Resource) string {
	format, unit := number[int64], ""
	switch r.Unit {
	case "px/s":
		format, unit = mega, " Mpx/s"
	case "bytes":
		format, unit = gib, " GiB"
	}
	text := fmt.Sprintf("%s of %s%s", format(r.Held), orUnknown(r.Limit, format), unit)
	if r.Unit == "px/s" {
		text += fmt.Sprintf(" (%s of %s × 1080p30)", equivalents(r.Held), orUnknown(r.Limit, equivalents))
	}
	return fmt.Sprintf("%s: reserved %s by %s, %s of it lately; used %s",
		text, format(r.Reserved), count(r.Streams, "stream"), format(r.Young), orUnknown(r.Used, format))
}

func limited(l wire.LearnedLimit) string {
	switch l.Limit {
	case "capacity":
		return "at most " + px(l.Value)
	case "sessions":
		return "at most " + amount(l.Value, "sessions")
	case "memory":
		return "at most " + amount(l.Value, "bytes")
	}
	return "not to be used"
}

func printGPU(t *table, g wire.GPU) {
	t.row("  card", fmt.Sprintf("%s, driver %s, PCI %s, index %s, MIG %s", orUnknown(g.Architecture, text), orUnknown(g.Driver, text),
		orUnknown(g.PciBus, text), orUnknown(g.Index, number[int]), orUnknown(g.Mig, yes)))
	t.row("  encoders", fmt.Sprintf("%s, %s busy, free %s; sessions limited by the driver: %s", orUnknown(g.Encoders, number[int]),
		orUnknown(g.EncoderUtilizationPct, percent), orUnknown(g.EncoderCapacityPct, byCodec), orUnknown(g.SessionLimited, yes)))
	t.row("  decoders", orUnknown(g.DecoderUtilizationPct, percent)+" busy")
	t.row("  sessions", fmt.Sprintf("%s, average %s fps, latency %s", orUnknown(g.SessionCount, number[int]), orUnknown(g.AverageFps, number[int]),
		orUnknown(g.AverageLatencyUs, func(us int) string { return fmt.Sprintf("%.1f ms", float64(us)/1000) })))
	if g.Sessions != nil {
		for _, s := range *g.Sessions {
			t.row(fmt.Sprintf("  session of pid %d", s.Pid), fmt.Sprintf("%s %dx%d, %d fps", s.Codec, s.Width, s.Height, s.Fps))
		}
	}
	t.row("  power", fmt.Sprintf("%s, %s, clocks lowered by %s", orUnknown(g.PowerW, func(w float64) string { return fmt.Sprintf("%.0f W", w) }),
		orUnknown(g.TemperatureC, func(c int) string { return fmt.Sprintf("%d °C", c) }), orUnknown(g.ClockReasons, reasons)))
}

func byCodec(free map[string]int) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(free)) {
		parts = append(parts, c+" "+percent(free[c]))
	}
	return orNothing(parts)
}

func reasons(list []string) string { return orNothing(list) }

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
