package scaling

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// step is how often the tests look.
const step = 5 * time.Second

// even is a load that its instances share evenly.
func even(n int, each float64) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = each
	}
	return list
}

func TestDecide(t *testing.T) {
	all := func(count, lowest, most int, each float64) Sample {
		return Sample{Count: count, Min: lowest, Max: most, Running: even(count, each)}
	}
	with := func(s Sample, change func(*Sample)) Sample { change(&s); return s }
	for name, tc := range map[string]struct {
		s     Sample
		after time.Duration // for which the sample has been so
		want  int
		says  string
	}{
		"as it should be":            {all(2, 1, 4, 0.5), time.Hour, 2, "a mean of 50 %"},
		"busy for a moment":          {all(2, 1, 4, 0.9), 25 * time.Second, 2, "a mean of 90 %"},
		"busy":                       {all(2, 1, 4, 0.9), 30 * time.Second, 3, "a mean of 90 % over 2 running, above the target of 60 % for 30s"},
		"very busy: at most double":  {all(2, 1, 40, 9), 30 * time.Second, 4, "900 %"},
		"busy, and at its most":      {all(3, 1, 3, 0.9), time.Hour, 3, "3 is the most that may run"},
		"the most cuts the step":     {all(2, 1, 3, 9), 30 * time.Second, 3, ""},
		"exactly at the target":      {all(2, 1, 4, 0.6), time.Hour, 2, ""},
		"busy, one does not run yet": {with(all(3, 1, 9, 2), func(s *Sample) { s.Running = s.Running[1:] }), time.Hour, 3, "only 2 of 3 run yet"},
		"idle for a moment":          {all(3, 1, 4, 0.1), 295 * time.Second, 3, ""},
		"idle: one less":             {all(3, 1, 4, 0.1), 300 * time.Second, 2, "a mean of 10 % over 3 running, below half of the target of 60 % for 5m0s"},
		"idle, at its least":         {all(1, 1, 4, 0), time.Hour, 1, ""},
		"idle, its least is more":    {all(2, 2, 4, 0), time.Hour, 2, ""},
		"half of the target":         {all(3, 1, 4, 0.3), time.Hour, 3, ""},
		"one less would be busy":     {all(2, 1, 4, 0.29), time.Hour, 2, "a mean of 29 %"},
		"idle, and one never came":   {with(all(4, 1, 9, 0.1), func(s *Sample) { s.Running = s.Running[1:] }), time.Hour, 3, ""},
		"partial data":               {with(all(2, 1, 4, 9), func(s *Sample) { s.Unknown = "x of y" }), time.Hour, 2, "not all is known: x of y"},
		"a deployment":               {with(all(2, 1, 4, 9), func(s *Sample) { s.Deploying = true }), time.Hour, 2, "a deployment runs"},
		"none runs":                  {all(0, 0, 4, 0), time.Hour, 0, "none runs"},
		"below its bounds":           {all(1, 2, 4, 0.5), 0, 2, "1 is not within 2 and 4"},
		"above its bounds":           {all(9, 2, 4, 0.5), 0, 4, "9 is not within 2 and 4"},
	} {
		t.Run(name, func(t *testing.T) {
			p, st := Default(), State{}
			var d Decision
			for at := time.Duration(0); at <= tc.after; at += step {
				tc.s.At = start.Add(at)
				if d, st = p.Decide(tc.s, st); at < tc.after && d.Count != tc.s.Count && d.Count != tc.want {
					t.Fatalf("after %v: %+v", at, d)
				}
			}
			if d.Count != tc.want || !strings.Contains(d.Why, tc.says) {
				t.Errorf("%+v, want %d, %q", d, tc.want, tc.says)
			}
		})
	}
}

// A decision that could not be carried out is made again; one that was is followed
// by the cool-down, whoever changed the count.
func TestCooldown(t *testing.T) {
	p, st := Default(), State{}
	look := func(at time.Duration, count int) (d Decision) {
		d, st = p.Decide(Sample{At: start.Add(at), Count: count, Min: 1, Max: 9, Running: even(count, 0.9)}, st)
		return d
	}
	look(0, 2)
	for _, at := range []time.Duration{30, 35, 40} {
		if d := look(at*time.Second, 2); d.Count != 3 {
			t.Fatalf("at %d s: %+v", at, d)
		}
	}
	for at := 45; at < 105; at += 5 {
		if d := look(time.Duration(at)*time.Second, 3); d.Count != 3 {
			t.Fatalf("at %d s: %+v", at, d)
		}
	}
	if d := look(105*time.Second, 3); d.Count != 5 {
		t.Errorf("after the cool-down: %+v", d)
	}
}

// What is not known starts the time again.
func TestTimeStartsAgain(t *testing.T) {
	for name, disturb := range map[string]func(*Sample){
		"unknown":    func(s *Sample) { s.Unknown = "x" },
		"deployment": func(s *Sample) { s.Deploying = true },
		"not busy":   func(s *Sample) { s.Running = even(2, 0.5) },
	} {
		p, st := Default(), State{}
		for at := 0; at <= 50; at += 5 {
			s := Sample{At: start.Add(time.Duration(at) * time.Second), Count: 2, Min: 1, Max: 9, Running: even(2, 0.9)}
			if at == 25 {
				disturb(&s)
			}
			var d Decision
			if d, st = p.Decide(s, st); d.Count != 2 {
				t.Errorf("%s: at %d s %+v", name, at, d)
			}
		}
	}
}

// world is a load that instances share, beside what each costs by being there.
type world struct {
	load, base float64
	noise      func() float64
}

func (w world) each(n int) float64 { return (w.load/float64(n) + w.base) * (1 + w.noise()) }

// simulate returns the counts that follow each other within some hours.
func simulate(p Policy, w world, count, lowest, most int) []int {
	counts, st := []int{count}, State{}
	for at := time.Duration(0); at < 4*time.Hour; at += step {
		var d Decision
		d, st = p.Decide(Sample{At: start.Add(at), Count: count, Min: lowest, Max: most, Running: even(count, w.each(count))}, st)
		if d.Count != count {
			count = d.Count
			counts = append(counts, count)
		}
	}
	return counts
}

// TestNoFlapping: a load that does not change, or hardly, makes the count go one
// way, until it rests within its bounds.
func TestNoFlapping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lowest := rapid.IntRange(1, 5).Draw(t, "min")
		most := rapid.IntRange(lowest, 20).Draw(t, "max")
		count := rapid.IntRange(lowest, most).Draw(t, "count")
		jitter := rapid.Float64Range(0, 0.04).Draw(t, "noise")
		seed := rapid.Uint64().Draw(t, "seed")
		w := world{load: rapid.Float64Range(0, 20).Draw(t, "load"), base: rapid.Float64Range(0, 0.2).Draw(t, "base"), noise: func() float64 {
			seed = seed*6364136223846793005 + 1442695040888963407
			return jitter * (float64(seed>>40)/float64(1<<23) - 1)
		}}
		counts := simulate(Default(), w, count, lowest, most)
		up, down := false, false
		for i, n := range counts {
			if n < lowest || n > most {
				t.Fatalf("%d is not within %d and %d: %v", n, lowest, most, counts)
			}
			if i > 0 {
				up, down = up || n > counts[i-1], down || n < counts[i-1]
			}
		}
		if up && down {
			t.Fatalf("it goes back and forth: %v", counts)
		}
		last := counts[len(counts)-1]
		w.noise = func() float64 { return 0 }
		if mean := w.each(last); mean > 0.6*1.05 && last < most {
			t.Fatalf("it stays busy, with a mean of %v: %v", mean, counts)
		}
	})
}

// TestBounds: whatever is seen, it stays within its bounds, and does nothing on
// partial data.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, st := Policy{Target: rapid.Float64Range(0.1, 1).Draw(t, "target")}, State{}
		at := start
		for range rapid.IntRange(1, 20).Draw(t, "samples") {
			lowest := rapid.IntRange(0, 5).Draw(t, "min")
			s := Sample{Count: rapid.IntRange(0, 12).Draw(t, "count"), Min: lowest, Max: rapid.IntRange(lowest, 10).Draw(t, "max"),
				Running: rapid.SliceOfN(rapid.Float64Range(0, 50), 0, 12).Draw(t, "running"), Deploying: rapid.Bool().Draw(t, "deploying"),
				Unknown: rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "unknown")}
			at = at.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
			s.At = at
			var d Decision
			d, st = p.Decide(s, st)
			inside := s.Count >= s.Min && s.Count <= s.Max
			switch {
			case d.Why == "":
				t.Fatal("no reason")
			case (s.Deploying || (s.Unknown != "" && inside)) && d.Count != s.Count:
				t.Fatalf("%+v of %+v", d, s)
			case !s.Deploying && (d.Count < s.Min || d.Count > s.Max):
				t.Fatalf("%+v of %+v", d, s)
			case inside && d.Count > s.Count*most, inside && d.Count < s.Count-1:
				t.Fatal(fmt.Sprintf("too far: %+v of %+v", d, s))
			}
		}
	})
}
