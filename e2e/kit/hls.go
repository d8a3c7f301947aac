package kit

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Master is a master playlist, read strictly and by hand: a parser that
// forgives would hide what players don't forgive.
type Master struct {
	URL      string
	Variants []Variant
	Audio    []Variant // EXT-X-MEDIA with a URI
}

// Variant is one media playlist of a master playlist.
type Variant struct {
	URL   string
	Attrs map[string]string
}

// Num returns an attribute as a number, NaN when it is none.
func (v Variant) Num(name string) float64 {
	f, err := strconv.ParseFloat(v.Attrs[name], 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

// Media is a media playlist.
type Media struct {
	URL      string
	Target   float64
	Seq      uint64
	DiscSeq  uint64
	End      bool
	HoldBack float64
	Segments []Seg
}

// Seg is a segment of a Media playlist.
type Seg struct {
	Number   uint64
	Disc     bool   // EXT-X-DISCONTINUITY stands before it
	DiscSeq  uint64 // its discontinuity sequence number
	URL, Map string
	Duration float64
	PDT      time.Time // zero when it has none
}

// FetchMaster gets and parses a master playlist.
func FetchMaster(u string) (Master, error) {
	b, err := FetchOK(u)
	if err != nil {
		return Master{}, err
	}
	return ParseMaster(u, b)
}

// ParseMaster parses a master playlist.
func ParseMaster(u string, b []byte) (Master, error) {
	m := Master{URL: u}
	var inf map[string]string
	err := lines(b, func(line string) error {
		switch tag, val, _ := strings.Cut(line, ":"); {
		case tag == "#EXT-X-STREAM-INF":
			inf = attrs(val)
		case tag == "#EXT-X-MEDIA":
			a := attrs(val)
			if a["URI"] == "" || a["TYPE"] != "AUDIO" {
				return nil
			}
			r, err := resolve(u, a["URI"])
			m.Audio = append(m.Audio, Variant{URL: r, Attrs: a})
			return err
		case !strings.HasPrefix(line, "#"):
			if inf == nil {
				return fmt.Errorf("URI %q has no EXT-X-STREAM-INF", line)
			}
			r, err := resolve(u, line)
			m.Variants = append(m.Variants, Variant{URL: r, Attrs: inf})
			inf = nil
			return err
		}
		return nil
	})
	if err == nil && len(m.Variants) == 0 {
		err = fmt.Errorf("%s has no variants", u)
	}
	return m, err
}

// All returns the media playlists, variants first.
func (m Master) All() []Variant { return append(append([]Variant(nil), m.Variants...), m.Audio...) }

// FetchMedia gets and parses a media playlist.
func FetchMedia(u string) (Media, error) {
	b, err := FetchOK(u)
	if err != nil {
		return Media{}, err
	}
	return ParseMedia(u, b)
}

// ParseMedia parses a media playlist.
func ParseMedia(u string, b []byte) (Media, error) {
	m := Media{URL: u}
	var s Seg
	var mapURL string
	num := func(v string) uint64 { n, _ := strconv.ParseUint(v, 10, 64); return n }
	err := lines(b, func(line string) error {
		tag, val, _ := strings.Cut(line, ":")
		var err error
		switch tag {
		case "#EXT-X-TARGETDURATION":
			m.Target, err = strconv.ParseFloat(val, 64)
		case "#EXT-X-MEDIA-SEQUENCE":
			m.Seq, err = strconv.ParseUint(val, 10, 64)
		case "#EXT-X-DISCONTINUITY-SEQUENCE":
			m.DiscSeq = num(val)
		case "#EXT-X-SERVER-CONTROL":
			m.HoldBack, _ = strconv.ParseFloat(attrs(val)["HOLD-BACK"], 64)
		case "#EXT-X-ENDLIST":
			m.End = true
		case "#EXT-X-DISCONTINUITY":
			s.Disc = true
		case "#EXT-X-PROGRAM-DATE-TIME":
			s.PDT, err = time.Parse(time.RFC3339Nano, fixZone(val))
		case "#EXT-X-MAP":
			mapURL, err = resolve(u, attrs(val)["URI"])
		case "#EXTINF":
			v, _, _ := strings.Cut(val, ",")
			s.Duration, err = strconv.ParseFloat(v, 64)
		default:
			if strings.HasPrefix(line, "#") {
				return nil
			}
			if s.Duration <= 0 {
				return fmt.Errorf("segment %s has no EXTINF, or one of 0", line)
			}
			s.URL, err = resolve(u, line)
			s.Map, s.Number = mapURL, m.Seq+uint64(len(m.Segments))
			s.DiscSeq = m.DiscSeq
			if n := len(m.Segments); n > 0 {
				s.DiscSeq = m.Segments[n-1].DiscSeq
			}
			if s.Disc {
				s.DiscSeq++
			}
			m.Segments = append(m.Segments, s)
			s = Seg{}
		}
		return err
	})
	if err != nil {
		return m, fmt.Errorf("%s: %w", u, err)
	}
	return m, nil
}

// fixZone turns ffmpeg's +0000 into RFC 3339's +00:00.
func fixZone(v string) string {
	if n := len(v); n > 5 && (v[n-5] == '+' || v[n-5] == '-') {
		return v[:n-2] + ":" + v[n-2:]
	}
	return v
}

func lines(b []byte, f func(string) error) error {
	sc := bufio.NewScanner(bytes.NewReader(b))
	first := true
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if first {
			if line != "#EXTM3U" {
				return fmt.Errorf("not a playlist: it starts with %.40q", line)
			}
			first = false
			continue
		}
		if line == "" {
			continue
		}
		if err := f(line); err != nil {
			return err
		}
	}
	if first {
		return fmt.Errorf("an empty playlist")
	}
	return sc.Err()
}

// attrs parses an attribute list; quoted values lose their quotes.
func attrs(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var val string
		if strings.HasPrefix(rest, `"`) {
			val, rest, _ = strings.Cut(rest[1:], `"`)
			rest = strings.TrimPrefix(rest, ",")
		} else {
			val, rest, _ = strings.Cut(rest, ",")
		}
		out[strings.TrimSpace(name)], s = val, rest
	}
	return out
}
