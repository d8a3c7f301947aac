package kit

import (
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// MPD is the part of a DASH manifest that the tests judge.
type MPD struct {
	Type    string   `xml:"type,attr"`
	AST     string   `xml:"availabilityStartTime,attr"`
	Publish string   `xml:"publishTime,attr"`
	Delay   string   `xml:"suggestedPresentationDelay,attr"`
	Depth   string   `xml:"timeShiftBufferDepth,attr"`
	Length  string   `xml:"mediaPresentationDuration,attr"`
	Periods []Period `xml:"Period"`
	UTC     []struct {
		Scheme string `xml:"schemeIdUri,attr"`
		Value  string `xml:"value,attr"`
	} `xml:"UTCTiming"`
	URL string `xml:"-"`
}

// Period is one run's share of a presentation.
type Period struct {
	ID    string `xml:"id,attr"`
	Start string `xml:"start,attr"`
	Base  string `xml:"BaseURL"`
	Sets  []Set  `xml:"AdaptationSet"`
}

// Set is an adaptation set.
type Set struct {
	Kind     string           `xml:"contentType,attr"`
	MIME     string           `xml:"mimeType,attr"`
	Template *Template        `xml:"SegmentTemplate"`
	Reps     []Representation `xml:"Representation"`
}

// Representation is one rendition.
type Representation struct {
	ID        string    `xml:"id,attr"`
	MIME      string    `xml:"mimeType,attr"`
	Codecs    string    `xml:"codecs,attr"`
	Width     int       `xml:"width,attr"`
	Height    int       `xml:"height,attr"`
	FrameRate string    `xml:"frameRate,attr"`
	Template  *Template `xml:"SegmentTemplate"`
}

// Template is a SegmentTemplate with a timeline.
type Template struct {
	Timescale int64  `xml:"timescale,attr"`
	PTO       int64  `xml:"presentationTimeOffset,attr"`
	Init      string `xml:"initialization,attr"`
	Media     string `xml:"media,attr"`
	Start     *int64 `xml:"startNumber,attr"`
	Timeline  []struct {
		T *int64 `xml:"t,attr"`
		D int64  `xml:"d,attr"`
		R int64  `xml:"r,attr"`
	} `xml:"SegmentTimeline>S"`
}

// DashSeg is a segment of a Representation, expanded.
type DashSeg struct {
	Number, T, D int64
	URL          string
}

// FetchMPD gets and parses a manifest.
func FetchMPD(u string) (MPD, error) {
	b, err := FetchOK(u)
	if err != nil {
		return MPD{}, err
	}
	m := MPD{URL: u}
	if err := xml.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", u, err)
	}
	if len(m.Periods) == 0 {
		return m, fmt.Errorf("%s has no Period", u)
	}
	return m, nil
}

// Video says whether the set holds pictures.
func (s Set) Video() bool {
	return s.Kind == "video" || strings.HasPrefix(s.MIME, "video/") || len(s.Reps) > 0 && (s.Reps[0].Width > 0 || strings.HasPrefix(s.Reps[0].MIME, "video/"))
}

// template returns the one that counts for rep.
func (s Set) template(rep Representation) (*Template, error) {
	t := rep.Template
	if t == nil {
		t = s.Template
	}
	if t == nil || len(t.Timeline) == 0 {
		return nil, fmt.Errorf("representation %s has no SegmentTemplate with a SegmentTimeline", rep.ID)
	}
	if t.Timescale <= 0 {
		return nil, fmt.Errorf("representation %s has no timescale", rep.ID)
	}
	return t, nil
}

// Expand returns a representation's template and segments; a hole or an
// overlap of more than 2 ms in its timeline is an error.
func (m MPD) Expand(p Period, s Set, rep Representation) (*Template, []DashSeg, error) {
	t, err := s.template(rep)
	if err != nil {
		return nil, nil, err
	}
	num := int64(1)
	if t.Start != nil {
		num = *t.Start
	}
	var segs []DashSeg
	var at int64
	for i, e := range t.Timeline {
		if e.T != nil {
			// The rounding to a timescale of 1,000 may leave 1 ms; 3 would be a hole.
			if i > 0 && max(*e.T-at, at-*e.T)*1000 > 2*t.Timescale {
				return t, nil, fmt.Errorf("representation %s: the timeline goes from %d to %d", rep.ID, at, *e.T)
			}
			at = *e.T
		}
		if e.D <= 0 || e.R < 0 {
			return t, nil, fmt.Errorf("representation %s: d=%d r=%d", rep.ID, e.D, e.R)
		}
		for range e.R + 1 {
			u, err := m.url(p, fill(t.Media, rep.ID, num, at))
			if err != nil {
				return t, nil, err
			}
			segs = append(segs, DashSeg{Number: num, T: at, D: e.D, URL: u})
			num, at = num+1, at+e.D
		}
	}
	return t, segs, nil
}

func (m MPD) url(p Period, ref string) (string, error) {
	base := m.URL
	if p.Base != "" {
		b, err := resolve(m.URL, strings.TrimSpace(p.Base))
		if err != nil {
			return "", err
		}
		base = b
	}
	return resolve(base, ref)
}

func fill(tmpl, id string, num, t int64) string {
	return strings.NewReplacer("$RepresentationID$", id, "$Number$", strconv.FormatInt(num, 10),
		"$Time$", strconv.FormatInt(t, 10)).Replace(tmpl)
}

// Check returns what is wrong with a manifest by itself.
func (m MPD) Check() []string {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, m.URL+": "+fmt.Sprintf(format, args...)) }
	if m.Type == "dynamic" && (m.AST == "" || m.Publish == "" || m.Delay == "" || len(m.UTC) == 0) {
		say("availabilityStartTime=%q publishTime=%q suggestedPresentationDelay=%q UTCTiming=%v", m.AST, m.Publish, m.Delay, m.UTC)
	}
	// Where the Period before ends: its pictures, or the track that ends first.
	end, least := math.NaN(), math.NaN()
	for i, p := range m.Periods {
		start, err := Duration(p.Start)
		if err != nil {
			say("Period %d: start %q: %v", i, p.Start, err)
			continue
		}
		if i > 0 && !(math.Abs(start-end) < 0.003 || math.Abs(start-least) < 0.003) {
			say("Period %s starts at %.4f s, its predecessor ends at %.4f", p.ID, start, end)
		}
		least = math.NaN()
		var offset *float64
		for _, s := range p.Sets {
			for _, rep := range s.Reps {
				t, segs, err := m.Expand(p, s, rep)
				if err != nil {
					say("Period %s: %v", p.ID, err)
					continue
				}
				off := float64(t.PTO) / float64(t.Timescale)
				if offset == nil {
					offset = &off
				}
				if math.Abs(off-*offset) > 0.001 {
					say("Period %s: presentationTimeOffset %.4f s in one set, %.4f in another", p.ID, *offset, off)
				}
				last := segs[len(segs)-1]
				stop := start + float64(last.T+last.D)/float64(t.Timescale) - off
				if s.Video() {
					end = stop
				}
				if math.IsNaN(least) || stop < least {
					least = stop
				}
			}
		}
	}
	return bad
}

// Duration parses an xs:duration of days, hours, minutes and seconds.
func Duration(s string) (float64, error) {
	date, clock, ok := strings.Cut(strings.TrimPrefix(s, "P"), "T")
	if !strings.HasPrefix(s, "P") {
		return 0, fmt.Errorf("not a duration")
	}
	sum := 0.0
	eat := func(part *string, unit string, seconds float64) error {
		v, rest, found := strings.Cut(*part, unit)
		if !found {
			return nil
		}
		f, err := strconv.ParseFloat(v, 64)
		sum += f * seconds
		*part = rest
		return err
	}
	if err := eat(&date, "D", 86400); err != nil || date != "" {
		return 0, fmt.Errorf("duration %q", s)
	}
	if !ok {
		return sum, nil
	}
	for _, u := range []struct {
		unit string
		s    float64
	}{{"H", 3600}, {"M", 60}, {"S", 1}} {
		if err := eat(&clock, u.unit, u.s); err != nil {
			return 0, err
		}
	}
	if clock != "" {
		return 0, fmt.Errorf("duration %q", s)
	}
	return sum, nil
}

// MPDWatch polls a manifest and records every breach of what must always hold.
type MPDWatch struct {
	*watcher
	url  string
	last MPD
	seen map[string]bool
}

// WatchMPD starts watching once the manifest answers, within limit.
func WatchMPD(t T, u string, limit time.Duration) *MPDWatch {
	t.Helper()
	w := &MPDWatch{url: u, seen: map[string]bool{}}
	Eventually(t, limit, "the manifest "+u, func() error {
		var err error
		w.last, err = FetchMPD(u)
		return err
	})
	w.watcher = watchEvery(time.Second, w.poll)
	t.Cleanup(w.Close)
	return w
}

func (w *MPDWatch) poll() {
	m, err := FetchMPD(w.url)
	if err != nil {
		w.problem("%v", err)
		return
	}
	for _, p := range m.Check() {
		w.problem("%s", p)
	}
	w.mu.Lock()
	old := w.last
	w.mu.Unlock()
	if old.AST != m.AST {
		w.problem("availabilityStartTime changed from %s to %s", old.AST, m.AST)
	}
	if a, errA := time.Parse(time.RFC3339Nano, old.Publish); errA == nil {
		if b, errB := time.Parse(time.RFC3339Nano, m.Publish); errB != nil || b.Before(a) {
			w.problem("publishTime went from %s to %s", old.Publish, m.Publish)
		}
	}
	starts := map[string]string{}
	for _, p := range old.Periods {
		starts[p.ID] = p.Start
	}
	for _, p := range m.Periods {
		if s, ok := starts[p.ID]; ok && s != p.Start {
			w.problem("Period %s moved from %s to %s", p.ID, s, p.Start)
		}
		for _, s := range p.Sets {
			for _, rep := range s.Reps {
				w.newest(m, p, s, rep)
			}
		}
	}
	w.mu.Lock()
	w.last = m
	w.mu.Unlock()
}

// newest fetches the last segment and compares its decode time with the
// timeline's.
func (w *MPDWatch) newest(m MPD, p Period, s Set, rep Representation) {
	_, segs, err := m.Expand(p, s, rep)
	if err != nil || len(segs) == 0 {
		return // Check has said so
	}
	last := segs[len(segs)-1]
	if w.seen[last.URL] {
		return
	}
	w.seen[last.URL] = true
	b, err := FetchOK(last.URL)
	if err != nil {
		w.problem("listed and can't be fetched: %v", err)
		return
	}
	if at, ok := DecodeTime(b); !ok || at != last.T {
		w.problem("%s: its decode time is %d, the timeline says %d", last.URL, at, last.T)
	}
}

// Last returns the newest manifest.
func (w *MPDWatch) Last() MPD {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// DecodeTime returns the baseMediaDecodeTime of a media segment's first
// fragment.
func DecodeTime(b []byte) (int64, bool) {
	moof, ok := box(b, "moof")
	if !ok {
		return 0, false
	}
	traf, ok := box(moof, "traf")
	if !ok {
		return 0, false
	}
	tfdt, ok := box(traf, "tfdt")
	switch {
	case ok && len(tfdt) >= 12 && tfdt[0] == 1:
		return int64(binary.BigEndian.Uint64(tfdt[4:])), true
	case ok && len(tfdt) >= 8 && tfdt[0] == 0:
		return int64(binary.BigEndian.Uint32(tfdt[4:])), true
	}
	return 0, false
}

// box returns the content of the first box of a type among b's boxes.
func box(b []byte, name string) ([]byte, bool) {
	for len(b) >= 8 {
		size := int(binary.BigEndian.Uint32(b))
		if size < 8 || size > len(b) {
			return nil, false
		}
		if string(b[4:8]) == name {
			return b[8:size], true
		}
		b = b[size:]
	}
	return nil, false
}
