package kit

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Probed is what ffprobe says of the consecutive segments of one rendition of
// one run, joined to one file.
type Probed struct {
	Track    Variant
	Map      string // the init segment's URL
	Segs     []Kept
	Kind     string // video or audio
	Codec    string
	Profile  string
	Width    int
	Height   int
	SAR      string
	Channels int
	Rate     int // samples per second
	Packets  []Packet
	// starts[i] is the index in Packets of segment i's first packet.
	starts []int
}

// Packet is one coded frame, in seconds.
type Packet struct {
	PTS, DTS, Duration float64
	Key                bool
	Pos                int64
}

type probeJSON struct {
	Streams []struct {
		Type     string `json:"codec_type"`
		Codec    string `json:"codec_name"`
		Profile  string `json:"profile"`
		Width    int    `json:"width"`
		Height   int    `json:"height"`
		SAR      string `json:"sample_aspect_ratio"`
		Channels int    `json:"channels"`
		Rate     string `json:"sample_rate"`
	} `json:"streams"`
	Packets []struct {
		PTS      string `json:"pts_time"`
		DTS      string `json:"dts_time"`
		Duration string `json:"duration_time"`
		Pos      string `json:"pos"`
		Flags    string `json:"flags"`
	} `json:"packets"`
}

// ProbeRuns joins the kept segments of each track by their init segment and
// probes every such file.
func (w *HLSWatch) ProbeRuns(t T) []Probed {
	t.Helper()
	var out []Probed
	for _, tr := range w.Tracks() {
		var group []Kept
		flush := func() {
			if len(group) > 0 {
				out = append(out, probeGroup(t, tr.Variant, group))
			}
			group = nil
		}
		for _, n := range slices.Sorted(maps.Keys(tr.Segs)) {
			k := tr.Segs[n]
			if len(group) > 0 && (group[0].Map != k.Map || group[len(group)-1].Number+1 != n) {
				flush()
			}
			group = append(group, k)
		}
		flush()
	}
	return out
}

func probeGroup(t T, v Variant, group []Kept) Probed {
	t.Helper()
	file, offsets, err := join(group)
	if err != nil {
		t.Fatalf("joining segments: %v", err)
	}
	p, err := ProbeFile(t, file)
	if err != nil {
		t.Fatalf("%s from number %d: %v", v.URL, group[0].Number, err)
	}
	p.Track, p.Map, p.Segs = v, group[0].Map, group
	next := 0
	for _, off := range offsets {
		for next < len(p.Packets) && p.Packets[next].Pos < off {
			next++
		}
		p.starts = append(p.starts, next)
	}
	return p
}

func join(group []Kept) (file string, offsets []int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(group[0].File), "joined-*.mp4")
	if err != nil {
		return "", nil, err
	}
	defer func() { err = firstError(err, f.Close()) }()
	var at int64
	add := func(name string) error {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, in)
		at += n
		return firstError(err, in.Close())
	}
	if group[0].Init != "" {
		if err := add(group[0].Init); err != nil {
			return "", nil, err
		}
	}
	for _, k := range group {
		offsets = append(offsets, at)
		if err := add(k.File); err != nil {
			return "", nil, err
		}
	}
	return f.Name(), offsets, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ProbeFile probes a file that holds one track.
func ProbeFile(t T, file string) (Probed, error) {
	cmd := exec.Command(FFprobe(t), "-v", "error", "-show_streams", "-show_packets", "-of", "json", file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return Probed{}, fmt.Errorf("ffprobe: %w: %s", err, stderr.String())
	}
	var j probeJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Probed{}, fmt.Errorf("ffprobe: %w", err)
	}
	if len(j.Streams) != 1 {
		return Probed{}, fmt.Errorf("%d tracks in one rendition", len(j.Streams))
	}
	if s := strings.TrimSpace(stderr.String()); s != "" {
		return Probed{}, fmt.Errorf("ffprobe says: %s", s)
	}
	s := j.Streams[0]
	p := Probed{Kind: s.Type, Codec: s.Codec, Profile: s.Profile, Width: s.Width, Height: s.Height, SAR: s.SAR, Channels: s.Channels}
	p.Rate, _ = strconv.Atoi(s.Rate)
	num := func(v string) float64 {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return math.NaN()
		}
		return f
	}
	for _, k := range j.Packets {
		pos, _ := strconv.ParseInt(k.Pos, 10, 64)
		p.Packets = append(p.Packets, Packet{PTS: num(k.PTS), DTS: num(k.DTS), Duration: num(k.Duration),
			Key: strings.HasPrefix(k.Flags, "K"), Pos: pos})
	}
	if len(p.Packets) == 0 {
		return p, fmt.Errorf("no packets in %s", file)
	}
	return p, nil
}

// segment returns the packets of segment i.
func (p Probed) segment(i int) []Packet {
	end := len(p.Packets)
	if i+1 < len(p.starts) {
		end = p.starts[i+1]
	}
	return p.Packets[p.starts[i]:end]
}

// String names the track and the run.
func (p Probed) String() string {
	return fmt.Sprintf("%s %dx%d numbers %d–%d of %s", p.Kind, p.Width, p.Height, p.Segs[0].Number,
		p.Segs[len(p.Segs)-1].Number, p.Track.URL)
}

// AverageRate returns frames per second over all packets, from the decode
// times of the first and the last.
func (p Probed) AverageRate() float64 {
	n := len(p.Packets)
	if n < 2 {
		return 0
	}
	return float64(n-1) / (p.Packets[n-1].DTS - p.Packets[0].DTS)
}

// Check returns what is wrong with the timing of a run's rendition: timestamps
// that jump, frames dropped or doubled, segments that don't start with a
// keyframe or whose EXTINF is not their length. fps is the source's rate, 0 for
// audio.
func (p Probed) Check(fps float64) []string {
	var bad []string
	say := func(format string, args ...any) {
		bad = append(bad, fmt.Sprintf("%s: ", p)+fmt.Sprintf(format, args...))
	}
	step := 1 / fps
	if p.Kind == "audio" {
		step = p.Packets[0].Duration
		if p.Codec == "aac" && p.Rate > 0 {
			step = 1024 / float64(p.Rate)
		}
	}
	for i := 1; i < len(p.Packets); i++ {
		d := p.Packets[i].DTS - p.Packets[i-1].DTS
		// RTMP carries milliseconds: a frame may come 1 ms early and the next one late.
		if math.Abs(d-step) > 0.0025+step*0.02 {
			say("packet %d of %d comes %.2f ms after its predecessor, not %.2f", i, len(p.Packets), d*1e3, step*1e3)
		}
	}
	for i, k := range p.Segs {
		pk := p.segment(i)
		if len(pk) == 0 {
			say("number %d holds no packets", k.Number)
			continue
		}
		if p.Kind == "video" && !pk[0].Key {
			say("number %d does not start with a keyframe", k.Number)
		}
		got := pk[len(pk)-1].DTS - pk[0].DTS + pk[len(pk)-1].Duration
		if i+1 < len(p.Segs) && len(p.segment(i+1)) > 0 {
			got = p.segment(i + 1)[0].DTS - pk[0].DTS
		}
		if math.Abs(got-k.Duration) > 0.003 {
			say("number %d lasts %.4f s, its EXTINF says %.4f", k.Number, got, k.Duration)
		}
	}
	return bad
}

// Keyframes returns the times of the keyframes.
func (p Probed) Keyframes() []float64 {
	var out []float64
	for _, k := range p.Packets {
		if k.Key {
			out = append(out, k.PTS)
		}
	}
	return out
}

// Aligned returns what differs between the keyframes of two video renditions
// of the same run over the numbers that both have.
func Aligned(a, b Probed) []string {
	var bad []string
	at := map[uint64]int{}
	for i, k := range b.Segs {
		at[k.Number] = i
	}
	for i, k := range a.Segs {
		j, ok := at[k.Number]
		if !ok {
			continue
		}
		ka, kb := Probed{Packets: a.segment(i)}.Keyframes(), Probed{Packets: b.segment(j)}.Keyframes()
		same := len(ka) == len(kb)
		for x := 0; same && x < len(ka); x++ {
			same = math.Abs(ka[x]-kb[x]) < 0.0015
		}
		if !same {
			bad = append(bad, fmt.Sprintf("number %d: keyframes at %v in %s and at %v in %s", k.Number, ka, a, kb, b))
		}
	}
	return bad
}

// Expect is what a run must look like; a zero field is not checked.
type Expect struct {
	Sizes [][2]int // of the video renditions, in any order
	FPS   float64  // the source's exact rate; every rendition has it within 0.01 %
	Audio int      // number of audio renditions; -1 for none
}

// ExpectRuns checks every run that was watched against e, and fails t for what
// is wrong. Runs of fewer than three segments are only checked for their
// timing.
func (w *HLSWatch) ExpectRuns(t T, e Expect) {
	t.Helper()
	byMap := map[string][]Probed{} // video by first number
	for _, p := range w.ProbeRuns(t) {
		fps := e.FPS
		if p.Kind == "audio" {
			fps = 0
		}
		report(t, p.Check(fps))
		if p.Kind == "video" && e.FPS > 0 {
			checkRate(t, p, e.FPS)
		}
		key := fmt.Sprint(p.Segs[0].Number)
		if p.Kind == "video" {
			byMap[key] = append(byMap[key], p)
		}
		if p.Kind == "audio" && e.Audio < 0 {
			t.Errorf("%s: the source has no sound", p)
		}
	}
	for _, group := range byMap {
		for _, p := range group[1:] {
			report(t, Aligned(group[0], p))
		}
		checkSizes(t, group, e.Sizes)
	}
	if e.Audio > 0 {
		audio := 0
		for _, tr := range w.Master.Audio {
			_ = tr
			audio++
		}
		if audio != e.Audio {
			t.Errorf("%d audio renditions, not %d", audio, e.Audio)
		}
	}
}

func report(t T, bad []string) {
	t.Helper()
	for i, s := range bad {
		if i == 5 {
			t.Errorf("… and %d more like these", len(bad)-i)
			return
		}
		t.Errorf("%s", s)
	}
}

// checkRate wants the average rate within 0.01 %; timestamps in milliseconds
// blur it by up to 1 ms over the whole.
func checkRate(t T, p Probed, fps float64) {
	t.Helper()
	span := float64(len(p.Packets)-1) / fps
	tolerance := fps * (1e-4 + 0.001/span)
	if got := p.AverageRate(); math.Abs(got-fps) > tolerance {
		t.Errorf("%s: %.5f frames per second over %.1f s, the source has %.5f", p, got, span, fps)
	}
}

func checkSizes(t T, group []Probed, want [][2]int) {
	t.Helper()
	if want == nil {
		return
	}
	var got [][2]int
	for _, p := range group {
		got = append(got, [2]int{p.Width, p.Height})
		if r := p.Track.Attrs["RESOLUTION"]; r != "" && r != fmt.Sprintf("%dx%d", p.Width, p.Height) {
			t.Errorf("%s: the master playlist says RESOLUTION=%s", p, r)
		}
	}
	less := func(a, b [2]int) int { return a[0]*a[1] - b[0]*b[1] }
	slices.SortFunc(got, less)
	want = slices.SortedFunc(slices.Values(want), less)
	if !slices.Equal(got, want) {
		t.Errorf("the run from number %d has the sizes %v, not %v", group[0].Segs[0].Number, got, want)
	}
}

// ExpectPresent fails t unless there are at least video and audio tracks that
// hold packets, each segment of video starting with a keyframe.
func (w *HLSWatch) ExpectPresent(t T, video, audio int) {
	t.Helper()
	count := map[string]map[string]bool{"video": {}, "audio": {}}
	for _, p := range w.ProbeRuns(t) {
		count[p.Kind][p.Track.URL] = true
		for i, k := range p.Segs {
			if pk := p.segment(i); p.Kind == "video" && (len(pk) == 0 || !pk[0].Key) {
				t.Errorf("%s: number %d does not start with a keyframe", p, k.Number)
			}
		}
	}
	if len(count["video"]) < video || len(count["audio"]) < audio {
		t.Errorf("%d video and %d audio renditions", len(count["video"]), len(count["audio"]))
	}
}
