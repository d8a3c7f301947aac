package fleet

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// The errors of what is known beforehand, as standard deviations of the
// logarithm: of a device's speed, of x264's cost by the picture, of NVENC's,
// which hardly depends on it, and of decoding's.
const (
	calibrationError = 0.05
	x264Error        = 0.15
	nvencError       = 0.05
	decodeError      = 0.10
)

// around draws a factor with mean 1.
func around(rng *rand.Rand, sigma float64) float64 {
	return math.Exp(sigma*rng.NormFloat64() - sigma*sigma/2)
}

const day = 86400.0

// Scenario is a day: which streams come, and what fails. Times are in seconds.
type Scenario struct {
	Seed       uint64
	Machines   []Machine
	Length     float64
	Broadcasts []Broadcast // by start
	Outages    []Outage    // by start
	// PeakFrom and PeakTo bound the hours for which packing and imbalance are told.
	PeakFrom, PeakTo float64
}

// Broadcast is a stream that starts and stops.
type Broadcast struct {
	ID            int
	Start, Length float64
	Request       placement.Request
	GPUOnly       bool
	// Asked is what it costs by its profile, Real by its source, and True in fact,
	// each by kind of device.
	Asked, Real map[capacity.Kind]placement.Cost
	True        map[capacity.Kind]Truth
	// Probe is how long after its placement its source has been probed and GPAC
	// begins.
	Probe float64
}

// Truth is what a stream really takes, in px/s of the device and of its host.
type Truth struct{ Px, HostPx float64 }

// Outage is a worker that is lost, or with Device > 0 a card of it.
type Outage struct {
	At, Until float64
	Worker    int
	Device    int
}

// Day makes the scenario of a day in which about peak streams run at once at
// nine in the evening.
func Day(seed uint64, peak int, machines []Machine) *Scenario {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &Scenario{Seed: seed, Machines: machines, Length: day, PeakFrom: 20 * 3600, PeakTo: 22 * 3600}
	catalogue := newCatalogue()
	rate := float64(peak) / meanLength // starts a second at the peak
	for t := 0.0; ; {
		if t += rng.ExpFloat64() / rate; t >= s.Length {
			break
		}
		if rng.Float64() >= tide(t) {
			continue
		}
		if start := onSchedule(rng, t); start < s.Length {
			s.Broadcasts = append(s.Broadcasts, catalogue.draw(rng, start))
		}
	}
	// What runs at midnight already starts in the first minutes.
	for range int(float64(peak) * tide(0)) {
		s.Broadcasts = append(s.Broadcasts, catalogue.draw(rng, rng.Float64()*600))
	}
	slices.SortStableFunc(s.Broadcasts, func(a, b Broadcast) int {
		if a.Start < b.Start {
			return -1
		}
		if a.Start > b.Start {
			return 1
		}
		return 0
	})
	for i := range s.Broadcasts {
		s.Broadcasts[i].ID = i
	}
	s.outages(rng)
	return s
}

// Burst makes the scenario of an hour in which n streams of 1080p, all as dear as
// their price, start within a second and stay.
func Burst(n int, machines []Machine) *Scenario {
	rng := rand.New(rand.NewPCG(1, 1))
	s := &Scenario{Seed: 1, Machines: machines, Length: 3600, PeakFrom: 600, PeakTo: 3600}
	c := &catalogue{}
	c.add("1080p", "h264", 1920, 1080, 30, 1)
	for i := range n {
		b := c.draw(rng, 10+float64(i)/float64(n))
		b.ID, b.Length = i, 7200
		for k, cost := range b.Real {
			b.True[k] = Truth{Px: float64(cost.Px), HostPx: float64(cost.HostPx)}
		}
		s.Broadcasts = append(s.Broadcasts, b)
	}
	return s
}

// tide is the hour's share of the peak: lowest at nine in the morning, a fifth.
func tide(t float64) float64 { return 0.6 + 0.4*math.Cos((t/3600-21)/24*2*math.Pi) }

// Streams last a lognormal time, the mean an hour, the median 36 minutes.
const (
	meanLength  = 3600.0
	lengthSigma = 1.0
)

// onSchedule moves one start in five to the next full or half hour, within a
// minute: programmes begin on time.
func onSchedule(rng *rand.Rand, t float64) float64 {
	if rng.Float64() >= 0.2 {
		return t
	}
	return math.Ceil(t/1800)*1800 + rng.NormFloat64()*20
}

// outages draws what fails: a quarter of the workers and a tenth of the cards
// once a day for ten minutes or so, and ten workers together in the evening, as
// when a rack loses its power.
func (s *Scenario) outages(rng *rand.Rand) {
	workers := build(s.Machines, rand.New(rand.NewPCG(s.Seed, 2)))
	away := func() float64 { return 600 * math.Exp(rng.NormFloat64()) }
	taken := map[int]bool{}
	if len(workers) >= 20 {
		at, first := 20*3600+rng.Float64()*3600, rng.IntN(len(workers)-10)
		for i := first; i < first+10; i++ {
			taken[i] = true
			s.Outages = append(s.Outages, Outage{At: at, Until: at + 900, Worker: i})
		}
	}
	for i, w := range workers {
		if taken[i] {
			continue
		}
		if at := rng.Float64() * s.Length; rng.Float64() < 0.25 {
			s.Outages = append(s.Outages, Outage{At: at, Until: at + away(), Worker: i})
			continue
		}
		for d := 1; d < len(w.Devices); d++ {
			if at := rng.Float64() * s.Length; w.Devices[d].Usable && rng.Float64() < 0.1 {
				s.Outages = append(s.Outages, Outage{At: at, Until: at + away(), Worker: i, Device: d})
			}
		}
	}
	slices.SortStableFunc(s.Outages, func(a, b Outage) int {
		if a.At < b.At {
			return -1
		}
		if a.At > b.At {
			return 1
		}
		return 0
	})
}

// catalogue is what streams are like. Costs are computed once for each variant.
type catalogue struct {
	variants []variant
	weights  []float64
}

type variant struct {
	request     placement.Request
	gpuOnly     bool
	asked, real map[capacity.Kind]placement.Cost
}

// newCatalogue is one in four 1080p, one in three 720p, the rest small; one in
// ten of the large ones in HEVC, which only cards encode; sources with 60 frames
// a second (one in eight of the large ones) or smaller than the profile (one in
// four of the 1080p) show when they are probed.
func newCatalogue() *catalogue {
	c := &catalogue{}
	for _, codec := range []struct {
		name   string
		weight float64
	}{{"h264", 0.9}, {"hevc", 0.1}} {
		c.add("1080p", codec.name, 1920, 1080, 30, 0.25*codec.weight*0.625)
		c.add("1080p", codec.name, 1920, 1080, 60, 0.25*codec.weight*0.125)
		c.add("1080p", codec.name, 1280, 720, 30, 0.25*codec.weight*0.25)
		c.add("720p", codec.name, 1280, 720, 30, 0.35*codec.weight*0.875)
		c.add("720p", codec.name, 1280, 720, 60, 0.35*codec.weight*0.125)
	}
	c.add("480p", "h264", 854, 480, 30, 0.15)
	c.add("360p", "h264", 640, 360, 30, 0.25)
	return c
}

func (c *catalogue) add(profile, codec string, width, height int, fps int64, weight float64) {
	p, ok := stream.Builtin(profile)
	if !ok {
		panic("no profile " + profile)
	}
	p.Video = slices.Clone(p.Video)
	for i := range p.Video {
		p.Video[i].Codec = codec
	}
	src := stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: width, Height: height, FPS: stream.Rate{Num: fps, Den: 1}}}
	ladder, err := p.Ladder(src)
	if err != nil {
		panic(err)
	}
	v := variant{gpuOnly: codec != "h264", request: placement.Request{Profile: p, Priority: stream.DefaultPriority},
		asked: map[capacity.Kind]placement.Cost{}, real: map[capacity.Kind]placement.Cost{}}
	for _, k := range []capacity.Kind{capacity.CPU, capacity.GPU} {
		v.asked[k], v.real[k] = placement.PriceProfile(k, p), placement.Price(k, ladder, src)
	}
	c.variants = append(c.variants, v)
	c.weights = append(c.weights, weight)
}

func (c *catalogue) draw(rng *rand.Rand, start float64) Broadcast {
	pick, i := rng.Float64(), 0
	for ; i < len(c.weights)-1 && pick >= c.weights[i]; i++ {
		pick -= c.weights[i]
	}
	v := &c.variants[i]
	x264, decode := around(rng, x264Error), around(rng, decodeError)
	cpu, gpu := v.real[capacity.CPU], v.real[capacity.GPU]
	return Broadcast{
		Start: max(0, start), Length: max(30, meanLength*around(rng, lengthSigma)), Request: v.request, GPUOnly: v.gpuOnly,
		Asked: v.asked, Real: v.real, Probe: 1.5 + 2*rng.Float64(),
		True: map[capacity.Kind]Truth{
			// On a CPU the price is the encoding's and the decoding's; GPU.HostPx is the
			// latter's part.
			capacity.CPU: {Px: float64(cpu.Px-gpu.HostPx)*x264 + float64(gpu.HostPx)*decode},
			capacity.GPU: {Px: float64(gpu.Px) * around(rng, nvencError), HostPx: float64(gpu.HostPx) * decode},
		},
	}
}
