package transcode

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// host is a worker with a CPU and two cards, the first with AV1.
func host() capacity.Report {
	card := func(id string, codecs ...string) capacity.Device {
		return capacity.Device{ID: id, Kind: capacity.GPU, Name: "NVIDIA " + id[len(id)-1:], Usable: true, Codecs: codecs, Capacity: ptr[int64](1e9), SessionMax: ptr[int64](5e8),
			GPU: &capacity.GPUState{MemoryTotal: ptr[int64](8 << 30), MemoryUsed: ptr[int64](1 << 30), SessionLimited: ptr(true)}}
	}
	return capacity.Report{Worker: "w1", SessionLimit: ptr(8), SessionsUsed: ptr(2), Devices: []capacity.Device{
		{ID: "cpu", Kind: capacity.CPU, Usable: true, Codecs: []string{"h264"}, Capacity: ptr[int64](2e8), Load: ptr(0.2)},
		card(gpu1, "h264", "hevc", "av1"), card(gpu2, "h264", "hevc")}}
}

func rungs(codecs ...string) (stream.Ladder, stream.SourceMedia) {
	l := stream.Ladder{Segment: 2}
	for i, c := range codecs {
		l.Video = append(l.Video, stream.OutVideo{Name: fmt.Sprint("r", i), Codec: c, Preset: "veryfast", Width: 1280, Height: 720, FrameStep: 1, GOP: 60,
			FPS: stream.Rate{Num: 30, Den: 1}, Bitrate: 1_000_000})
	}
	return l, stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 1280, Height: 720, FPS: stream.Rate{Num: 30, Den: 1}}}
}

func TestChoose(t *testing.T) {
	px := int64(1280 * 720 * 30)
	for name, c := range map[string]struct {
		codecs []string
		change func(*capacity.Report, *wish)
		want   string // the devices, best first
		says   string // of those that are refused
	}{
		"all, the CPU last":      {[]string{"h264"}, nil, gpu1 + " " + gpu2 + " cpu", ""},
		"away from where it is":  {[]string{"h264"}, func(_ *capacity.Report, w *wish) { w.not = map[string]string{gpu1: "the run leaves it"} }, gpu2 + " cpu", gpu1 + ": the run leaves it"},
		"hevc only on cards":     {[]string{"h264", "hevc"}, nil, gpu1 + " " + gpu2, "cpu: can't encode r1 (hevc)"},
		"av1 only on the first":  {[]string{"av1"}, nil, gpu1, gpu2 + ": can't encode r0 (av1)"},
		"the emptier card first": {[]string{"h264"}, func(_ *capacity.Report, w *wish) { w.held = map[string]int64{gpu1: 1e8} }, gpu2 + " " + gpu1 + " cpu", ""},
		"by what is measured":    {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.Devices[1].Used = ptr[int64](3e8) }, gpu2 + " " + gpu1 + " cpu", ""},
		"a full card":            {[]string{"h264"}, func(_ *capacity.Report, w *wish) { w.held = map[string]int64{gpu1: 1e9 - px + 1} }, gpu2 + " cpu", gpu1 + fmt.Sprintf(": needs %d of %s; of 1000000000, %d are taken", px, gpu1, int64(1e9)-px+1)},
		"exactly full":           {[]string{"h264"}, func(_ *capacity.Report, w *wish) { w.held = map[string]int64{gpu1: 1e9 - px} }, gpu2 + " " + gpu1 + " cpu", ""},
		"no memory":              {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.Devices[2].GPU.MemoryUsed = ptr[int64](8 << 30) }, gpu1 + " cpu", "of " + gpu2 + "/memory"},
		"memory unknown":         {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.Devices[2].GPU.MemoryTotal = nil }, gpu1 + " " + gpu2 + " cpu", ""},
		"no sessions":            {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.SessionsUsed = ptr(8) }, "cpu", "of nvenc-sessions; of 8, 8 are taken"},
		"its own sessions": {[]string{"h264"}, func(r *capacity.Report, w *wish) {
			r.SessionsUsed = ptr(8)
			w.own = []stream.Reservation{{Resource: capacity.ResourceSessions, Amount: 1}}
		}, gpu1 + " " + gpu2 + " cpu", ""},
		"its own sessions, not opened yet": {[]string{"h264"}, func(r *capacity.Report, w *wish) {
			r.SessionsUsed, w.young = ptr(8), true
			w.own = []stream.Reservation{{Resource: capacity.ResourceSessions, Amount: 1}}
		}, "cpu", "of nvenc-sessions; of 8, 8 are taken"},
		"a card required": {[]string{"h264"}, func(_ *capacity.Report, w *wish) { w.require = []stream.Rule{"device=gpu"} }, gpu1 + " " + gpu2,
			"cpu: the stream requires device=gpu"},
		"no CPU to decode": {[]string{"hevc"}, func(_ *capacity.Report, w *wish) { w.held = map[string]int64{"cpu": 2e8} }, "", "needs 9400320 of cpu"},
		"unusable": {[]string{"h264"}, func(r *capacity.Report, _ *wish) {
			r.Devices[1].Usable, r.Devices[1].Reason = false, "its test encode failed"
		}, gpu2 + " cpu", "not usable: its test encode failed"},
		"unmeasured":               {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.Devices[0].Capacity = nil }, gpu1 + " " + gpu2, "cpu: its capacity has not been measured"},
		"wider than one engine":    {[]string{"h264"}, func(r *capacity.Report, _ *wish) { r.Devices[1].SessionMax = ptr(px - 1) }, gpu2 + " cpu", "one encoder session can do"},
		"more than the CPU":        {[]string{"h264", "h264", "h264", "h264", "h264", "h264", "h264"}, func(r *capacity.Report, _ *wish) { r.SessionLimit = nil }, gpu1 + " " + gpu2, "cpu: needs"},
		"nothing else uses it all": {[]string{"h264"}, func(r *capacity.Report, w *wish) { r.Devices = r.Devices[:1]; w.not = map[string]string{"cpu": "x"} }, "", "cpu: x"},
	} {
		t.Run(name, func(t *testing.T) {
			r := host()
			var w wish
			w.ladder, w.media = rungs(c.codecs...)
			if c.change != nil {
				c.change(&r, &w)
			}
			fit, refused := choose(r, w)
			var ids []string
			for _, o := range fit {
				ids = append(ids, o.device.ID)
				if len(o.limits) != len(o.reserved) || o.reserved[0].Resource != o.device.ID {
					t.Errorf("%+v", o)
				}
			}
			if strings.Join(ids, " ") != c.want || !strings.Contains(strings.Join(refused, "; "), c.says) || len(fit)+len(refused) != len(r.Devices) {
				t.Errorf("%v, refused %q; want %s and %q", ids, refused, c.want, c.says)
			}
		})
	}
}

func TestCosting(t *testing.T) {
	held := []stream.Reservation{{Resource: gpu1, Amount: 9}, {Resource: "cpu", Amount: 9}, {Resource: gpu1 + "/memory", Amount: 9}, {Resource: capacity.ResourceSessions, Amount: 9}}
	got := costing(held, placement.Cost{Px: 1, HostPx: 2, Memory: 3, Sessions: 4})
	if want := []stream.Reservation{{Resource: gpu1, Amount: 1}, {Resource: "cpu", Amount: 2}, {Resource: gpu1 + "/memory", Amount: 3}, {Resource: capacity.ResourceSessions, Amount: 4}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := costing(held, placement.Cost{Px: 1}); len(got) != 1 {
		t.Errorf("sound alone holds %v", got)
	}
}
