package placement

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// A 720p ladder takes 67 Mpx/s of a CPU; of a GPU 47 Mpx/s, and 20 of its host's
// CPU; 240p takes 4.3 Mpx/s of a CPU.
func TestDecide(t *testing.T) {
	const m = 1_000_000
	big, small := builtin("720p"), builtin("240p")
	hevc := builtin("360p")
	hevc.Video = slices.Clone(hevc.Video)
	hevc.Video[0].Codec = "hevc"
	full := func(id string) func(*Worker) { return held(id, 900*m) }
	workers := func(w ...Worker) []Worker { return w }
	rules := func(r ...stream.Rule) []stream.Rule { return r }
	var sixteen []stream.Rule
	for i := range stream.MaxRules {
		sixteen = append(sixteen, stream.Rule(fmt.Sprintf("x%d=1", i)))
	}
	cases := map[string]struct {
		workers []Worker
		policy  Policy
		req     Request
		want    string // worker/device, or the reason's code and a part of the refusal
	}{
		"none":         {nil, Policy{}, Request{}, "- no worker has reported"},
		"one":          {workers(cpuWorker("a", 100*m)), Policy{}, Request{}, "a/cpu"},
		"too small":    {workers(cpuWorker("a", 60*m)), Policy{}, Request{}, "px a/cpu: needs 67"},
		"reserved":     {workers(cpuWorker("a", 100*m, held("cpu", 50*m))), Policy{}, Request{}, "px of 100000000 px/s, 50000000 are reserved and unknown used"},
		"measured":     {workers(cpuWorker("a", 100*m, held("cpu", 5*m), dev(func(d *capacity.Device) { d.Used = ptr(int64(40 * m)) }))), Policy{}, Request{}, "px 40000000 used"},
		"others use":   {workers(cpuWorker("a", 100*m, dev(func(d *capacity.Device) { d.Other = ptr(int64(40 * m)) }))), Policy{}, Request{}, "px of 60000000"},
		"young":        {workers(cpuWorker("a", 100*m, dev(func(d *capacity.Device) { d.Used = ptr(int64(20 * m)) }), func(w *Worker) { w.Ledger["cpu"] = Load{30 * m, 30 * m, 1} })), Policy{}, Request{}, "px 30000000 are reserved (30000000 of them lately) and 20000000 used"},
		"spread":       {workers(cpuWorker("a", 200*m, held("cpu", 10*m)), cpuWorker("b", 200*m)), Policy{}, Request{}, "b/cpu"},
		"pack":         {workers(cpuWorker("a", 200*m, held("cpu", 10*m)), cpuWorker("b", 200*m)), Policy{Pack: true}, Request{}, "a/cpu"},
		"by share":     {workers(cpuWorker("a", 100*m), cpuWorker("b", 1000*m, held("cpu", 300*m))), Policy{}, Request{}, "b/cpu"},
		"by name":      {workers(cpuWorker("b", 100*m), cpuWorker("a", 100*m)), Policy{}, Request{}, "a/cpu"},
		"stay":         {workers(cpuWorker("a", 200*m), cpuWorker("b", 200*m, held("cpu", 40*m))), Policy{}, Request{Stay: "b"}, "b/cpu"},
		"stay full":    {workers(cpuWorker("a", 200*m), cpuWorker("b", 200*m, held("cpu", 150*m))), Policy{}, Request{Stay: "b"}, "a/cpu"},
		"avoid worker": {workers(cpuWorker("a", 100*m)), Policy{}, Request{Avoid: []string{"a"}}, "avoided avoided"},
		"avoid device": {workers(cpuWorker("a", 100*m, gpu("gpu-0", 900*m))), Policy{}, Request{Avoid: []string{"a/gpu-0"}}, "a/cpu"},
		"avoid other":  {workers(cpuWorker("a", 100*m)), Policy{}, Request{Avoid: []string{"b", "a/gpu-9"}}, "a/cpu"},
		"lost":         {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Lost = true })), Policy{}, Request{}, "lost a: lost"},
		"silent":       {workers(cpuWorker("a", 100*m, func(w *Worker) { w.HeartbeatAge = 4 * time.Second })), Policy{}, Request{}, "silent no heartbeat for 4.0 s, at most 3 s"},
		"draining":     {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Report.Drain = true })), Policy{}, Request{}, "draining draining"},
		"not ready":    {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Report.Ready, w.Report.Reason = false, "no gpac" })), Policy{}, Request{}, "not_ready not ready: no gpac"},
		"clock off":    {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Report.ClockErrorMillis = ptr(-250.0) })), Policy{}, Request{}, "clock -250 ms off, at most 200 ms"},
		"clock ?":      {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Report.ClockErrorMillis = nil })), Policy{}, Request{}, "clock not been compared"},
		"no device":    {workers(cpuWorker("a", 100*m, func(w *Worker) { w.Report.Devices = nil })), Policy{}, Request{}, "no_device has no device"},
		"unusable":     {workers(cpuWorker("a", 100*m, dev(func(d *capacity.Device) { d.Usable, d.Reason = false, "x264 failed" }))), Policy{}, Request{}, "unusable not usable: x264 failed"},
		"unmeasured":   {workers(cpuWorker("a", 100*m, dev(func(d *capacity.Device) { d.Capacity = nil }))), Policy{}, Request{}, "unmeasured not been measured"},
		"codec":        {workers(cpuWorker("a", 100*m)), Policy{}, Request{Profile: hevc}, "codec can't encode hevc; it has h264"},
		"no codecs":    {workers(cpuWorker("a", 100*m, dev(func(d *capacity.Device) { d.Codecs = nil }))), Policy{}, Request{}, "a/cpu"},
		"gpu no codec": {workers(cpuWorker("a", m, gpu("gpu-0", 900*m, func(d *capacity.Device) { d.Codecs = nil }))), Policy{}, Request{Require: rules("device=gpu")}, "codec it has none"},
		"hevc":         {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m))), Policy{}, Request{Profile: hevc}, "a/gpu-0"},

		"gpu first":      {workers(cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m, used(600*m)))), Policy{}, Request{}, "b/gpu-0"},
		"gpu kept":       {workers(cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m, used(800*m)))), Policy{}, Request{}, "a/cpu"},
		"kept for hevc":  {workers(cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m, used(800*m)))), Policy{}, Request{Profile: hevc}, "b/gpu-0"},
		"kept for rules": {workers(cpuWorker("b", 500*m, gpu("gpu-0", 900*m, used(800*m))), cpuWorker("c", 500*m, gpu("gpu-1", 900*m))), Policy{Pack: true}, Request{Require: rules("device!=cpu")}, "b/gpu-0"},
		"kept, then all": {workers(cpuWorker("a", 500*m, held("cpu", 450*m)), cpuWorker("b", 500*m, gpu("gpu-0", 900*m, used(800*m)))), Policy{}, Request{}, "b/gpu-0"},
		"next gpu":       {workers(cpuWorker("b", 500*m, gpu("gpu-0", 900*m), gpu("gpu-1", 900*m), full("gpu-0"))), Policy{}, Request{}, "b/gpu-1"},
		"then a cpu":     {workers(cpuWorker("b", 500*m, gpu("gpu-0", 900*m), full("gpu-0")), cpuWorker("c", 500*m, held("cpu", 400*m))), Policy{}, Request{}, "c/cpu"},
		"then gpu's cpu": {workers(cpuWorker("b", 500*m, gpu("gpu-0", 900*m), full("gpu-0")), cpuWorker("c", 500*m, held("cpu", 450*m))), Policy{}, Request{}, "b/cpu"},
		"small to a cpu": {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m)), cpuWorker("b", 500*m, held("cpu", 400*m))), Policy{}, Request{Profile: small}, "b/cpu"},
		"small to a gpu": {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m)), cpuWorker("b", 500*m, held("cpu", 499*m))), Policy{}, Request{Profile: small}, "a/gpu-0"},
		"never proven":   {workers(cpuWorker("a", m, gpu("gpu-0", 900*m, func(d *capacity.Device) { d.Usable, d.Reason = false, "no NVENC" }))), Policy{}, Request{Require: rules("device=gpu")}, "unusable no NVENC"},
		"too wide":       {workers(cpuWorker("a", 500*m, gpu("gpu-0", 50*m))), Policy{}, Request{Require: rules("device=gpu")}, "session_too_wide one rendition needs 27648000 px/s; one encoder session can do 25000000"},
		"host cpu":       {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m), held("cpu", 490*m))), Policy{}, Request{}, "host_cpu of the host's CPU to decode and scale"},
		"memory":         {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m), func(w *Worker) { w.Report.Devices[1].GPU.MemoryUsed = ptr(int64(24 << 30)) })), Policy{}, Request{Require: rules("device=gpu")}, "memory bytes"},
		"memory ?":       {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m, func(d *capacity.Device) { d.GPU.MemoryTotal = nil }))), Policy{}, Request{}, "a/gpu-0"},
		"sessions":       {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m, geforce), sessionLimit(8), held(capacity.ResourceSessions, 6))), Policy{}, Request{Require: rules("device=gpu")}, "sessions needs 3 encoder sessions; of 8 encoder sessions of the system, 6 are reserved"},
		"no cap":         {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m), sessionLimit(0))), Policy{}, Request{}, "a/gpu-0"},
		"reserve":        {workers(cpuWorker("a", 100*m, held("cpu", 30*m))), Policy{Reserve: 0.1}, Request{}, "failover_reserve outside the reserve for failover"},
		"failover":       {workers(cpuWorker("a", 100*m, held("cpu", 30*m))), Policy{Reserve: 0.1}, Request{Failover: true}, "a/cpu"},

		"require":        {workers(cpuWorker("a", 500*m), cpuWorker("b", 500*m, label("class", "x"))), Policy{}, Request{Require: rules("class=x")}, "b/cpu"},
		"require not":    {workers(cpuWorker("a", 500*m, label("class", "x")), cpuWorker("b", 500*m)), Policy{}, Request{Require: rules("class!=x")}, "b/cpu"},
		"require all":    {workers(cpuWorker("a", 500*m, label("class", "x"))), Policy{}, Request{Require: rules("class=x", "dc=1")}, "rule does not satisfy dc=1"},
		"label missing":  {workers(cpuWorker("a", 500*m)), Policy{}, Request{Require: rules("class=x")}, "rule does not satisfy class=x"},
		"require cpu":    {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m))), Policy{}, Request{Require: rules("device=cpu")}, "a/cpu"},
		"prefer":         {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m)), cpuWorker("b", 500*m, label("class", "x"))), Policy{}, Request{Prefer: rules("class=x")}, "b/cpu"},
		"prefer's order": {workers(cpuWorker("a", 500*m, label("p", "2"), label("q", "3")), cpuWorker("b", 500*m, label("o", "1"))), Policy{}, Request{Prefer: rules("o=1", "p=2", "q=3")}, "b/cpu"},
		"the last of 16": {workers(cpuWorker("a", 500*m, gpu("gpu-0", 900*m)), cpuWorker("b", 500*m, label("x15", "1"))), Policy{}, Request{Prefer: sixteen}, "b/cpu"},
		"prefer in vain": {workers(cpuWorker("a", 500*m)), Policy{}, Request{Prefer: rules("class=x")}, "a/cpu"},
		"own": {workers(cpuWorker("a", 100*m, held("cpu", 80*m))), Policy{},
			Request{Own: Own{Worker: "a", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 60 * m}}}}, "a/cpu"},
		"behind":            {workers(cpuWorker("a", 500*m)), Policy{}, Request{Behind: &Head{Stream: "first", Worker: "a", Device: "cpu"}}, "kept kept for first, which waits first"},
		"behind, elsewhere": {workers(cpuWorker("a", 500*m), cpuWorker("b", 500*m)), Policy{}, Request{Behind: &Head{Stream: "first", Worker: "a", Device: "cpu"}}, "b/cpu"},
		"behind, its host's CPU": {workers(cpuWorker("a", 200*m, gpu("gpu-0", 900*m))), Policy{},
			Request{Profile: builtin("480p"), Require: rules("device=cpu"), Behind: &Head{Stream: "first", Worker: "a", Device: "gpu-0", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 190 * m}}}}, "kept kept for first"},
		"behind what is gone":       {workers(cpuWorker("a", 500*m)), Policy{}, Request{Behind: &Head{Stream: "first", Worker: "b", Device: "cpu"}}, "a/cpu"},
		"failover ignores the head": {workers(cpuWorker("a", 500*m)), Policy{}, Request{Failover: true, Behind: &Head{Stream: "first", Worker: "a", Device: "cpu"}}, "a/cpu"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.req.Stream = "s"
			if c.req.Profile.Name == "" {
				c.req.Profile = big
			}
			d, err := Decide(&Snapshot{Workers: c.workers, Policy: c.policy}, c.req)
			if err == nil {
				if got := d.Worker + "/" + d.Device; got != c.want || d.Boot != "b-"+d.Worker {
					t.Fatalf("chose %s (boot %s), want %s", got, d.Boot, c.want)
				}
				return
			}
			code, part, _ := strings.Cut(c.want, " ")
			if !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), part) {
				t.Fatalf("got %v, want ErrNoRoom with %q", err, part)
			}
			no, ok := errors.AsType[*NoRoomError](err)
			if !ok || (code != "-" && !slices.ContainsFunc(no.Verdicts(), func(v Verdict) bool { return v.Reason.String() == code })) {
				t.Fatalf("no verdict is %s: %+v", code, no)
			}
		})
	}
	if _, err := Decide(&Snapshot{}, Request{Require: rules("nonsense")}); !errors.Is(err, stream.ErrInvalid) {
		t.Errorf("a rule that can't be read: %v", err)
	}
}

// What a decision reserves, and the limits that go with it.
func TestDecisionReserves(t *testing.T) {
	s := &Snapshot{Policy: Policy{Reserve: 0.1}, Workers: []Worker{cpuWorker("a", 1000,
		gpu("gpu-0", 4_000_000_000, geforce), sessionLimit(12), dev(func(d *capacity.Device) { *d.Capacity = 1_000_000_000 }))}}
	c := PriceProfile(capacity.GPU, builtin("1080p"))
	d, err := Decide(s, Request{Stream: "s", Profile: builtin("1080p")})
	if err != nil {
		t.Fatal(err)
	}
	want := []stream.Reservation{{Resource: "gpu-0", Amount: c.Px}, {Resource: "cpu", Amount: c.HostPx},
		{Resource: "gpu-0/memory", Amount: c.Memory}, {Resource: "nvenc-sessions", Amount: 4}}
	if !reflect.DeepEqual(d.Reserved, want) {
		t.Errorf("reserved %+v, want %+v", d.Reserved, want)
	}
	for i, limit := range []int64{3_600_000_000, 900_000_000, 20_873_541_058, 10} {
		if d.Limits[i].Limit != limit {
			t.Errorf("limit of %s is %d, want %d", d.Reserved[i].Resource, d.Limits[i].Limit, limit)
		}
	}
}

// cases counts what a property test tried.
func cases(t *testing.T, n *int) {
	t.Cleanup(func() { t.Logf("%d cases", *n) })
}

// A decision fits what the snapshot shows, does not depend on the workers'
// order, changes nothing, and a refusal is made only when nothing fits.
func TestDecideHolds(t *testing.T) {
	n, placed := 0, 0
	t.Cleanup(func() { t.Logf("%d cases, %d of them placed", n, placed) })
	rapid.Check(t, func(t *rapid.T) {
		n++
		s, r := drawFleet(t), drawRequest(t)
		before := s.Clone()
		d, err := Decide(s, r)
		if !reflect.DeepEqual(s.Workers, before.Workers) {
			t.Fatal("the snapshot changed")
		}
		other := s.Clone()
		perm := rapid.Permutation(other.Workers).Draw(t, "order")
		d2, err2 := Decide(&Snapshot{Workers: perm, Policy: s.Policy}, r)
		if !reflect.DeepEqual(d, d2) || (err == nil) != (err2 == nil) || (err != nil && err.Error() != err2.Error()) {
			t.Fatalf("the order matters: %+v (%v), %+v (%v)", d, err, d2, err2)
		}
		if err != nil {
			for _, p := range []stream.Profile{r.Profile, smallest(r.Profile)} {
				if at := anyFits(s, r, p); at != "" && (r.Degrade || len(p.Video) == len(r.Profile.Video)) {
					t.Fatalf("refused though %s has room: %v", at, err)
				}
			}
			return
		}
		placed++
		if text := over(s.worker(d.Worker), d, r.Failover, s.Policy.Reserve); text != "" {
			t.Fatalf("chose %+v, which has no room: %s", d, text)
		}
		if len(d.Profile.Video) < 1 || len(d.Profile.Video)+len(d.Dropped) != len(r.Profile.Video) || (len(d.Dropped) > 0 && !r.Degrade) {
			t.Fatalf("made %d rungs, dropped %d of %d", len(d.Profile.Video), len(d.Dropped), len(r.Profile.Video))
		}
	})
}

// anyFits looks for a device with room by the reports and ledgers alone.
func anyFits(s *Snapshot, r Request, p stream.Profile) string {
	for i := range s.Workers {
		w := &s.Workers[i]
		if w.Lost || w.Report.Drain {
			continue
		}
		for _, d := range w.Report.Devices {
			k := kindOf(d.Kind)
			c := PriceProfile(d.Kind, p)
			if !d.Usable || d.Capacity == nil || (d.SessionMax != nil && c.Widest > *d.SessionMax) || neededCodecs(p)&^codecOf("h264") != 0 && !slices.Contains(d.Codecs, "hevc") {
				continue
			}
			ok := true
			for _, text := range r.Require {
				key, value, equal, _ := text.Parse()
				ok = ok && rule{key, value, equal}.holds(w.Report.Labels, k)
			}
			if ok && over(w, Decision{Reserved: c.Reserve(w.Report, d)}, r.Failover, s.Policy.Reserve) == "" {
				return w.Report.Worker + "/" + d.ID
			}
		}
	}
	return ""
}
