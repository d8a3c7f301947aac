package stream

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a profile.
const (
	MaxVideoRenditions = 12
	MaxAudioRenditions = 8
	MaxDimension       = 7680
	MaxFPS             = 240
	MaxNameRunes       = 200 // a stream's display name
)

// FieldError says what is wrong with one field, named as in JSON, e.g.
// "video[1].width".
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// ValidationError wraps ErrInvalid and lists every field that is wrong.
type ValidationError struct {
	What   string // "stream" or "profile"
	Fields []FieldError
}

// Error lists the fields.
func (e *ValidationError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + ": " + f.Message
	}
	return "invalid " + e.What + ": " + strings.Join(parts, "; ")
}

// Unwrap returns ErrInvalid.
func (e *ValidationError) Unwrap() error { return ErrInvalid }

// FieldErrors returns the fields of the ValidationError that err wraps, nil
// when there is none.
func FieldErrors(err error) []FieldError {
	var v *ValidationError
	if errors.As(err, &v) {
		return v.Fields
	}
	return nil
}

// checker collects what is wrong.
type checker struct{ fields []FieldError }

func (c *checker) fail(field, format string, args ...any) {
	c.fields = append(c.fields, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// grammar takes the error of CheckID and its like.
func (c *checker) grammar(field string, err error) {
	if err != nil {
		c.fail(field, "%s", strings.TrimSuffix(err.Error(), ": "+ErrInvalid.Error()))
	}
}

// within accepts lo to hi; NaN and the infinities are in no range.
func (c *checker) within(field string, v, lo, hi float64, unit string) {
	if !(v >= lo && v <= hi) {
		c.fail(field, "%g is not between %g and %g%s", v, lo, hi, unit)
	}
}

func (c *checker) oneOf(field, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		c.fail(field, "%s is not one of %s", clip(v), strings.Join(allowed, ", "))
	}
}

func (c *checker) err(what string) error {
	if len(c.fields) == 0 {
		return nil
	}
	return &ValidationError{What: what, Fields: c.fields}
}

// Validate checks the operator's fields. Its error is a *ValidationError.
func (s Stream) Validate() error {
	var c checker
	c.grammar("id", CheckID(s.ID))
	c.grammar("profile", CheckName(s.Profile))
	switch {
	case !utf8.ValidString(s.Name):
		c.fail("name", "is not UTF-8")
	case utf8.RuneCountInString(s.Name) > MaxNameRunes:
		c.fail("name", "is longer than %d characters", MaxNameRunes)
	case strings.ContainsFunc(s.Name, unicode.IsControl):
		c.fail("name", "holds a control character")
	}
	c.within("grace_seconds", float64(s.Grace), 0, MaxGrace.Seconds(), " s")
	c.within("hold_back_seconds", float64(s.HoldBack), MinHoldBack.Seconds(), MaxHoldBack.Seconds(), " s")
	c.within("window_seconds", float64(s.Window), MinWindow.Seconds(), MaxWindow.Seconds(), " s")
	if s.Window < 2*s.HoldBack {
		// A player that starts hold_back behind the edge needs as much again to
		// fall behind without running out of the playlist.
		c.fail("window_seconds", "%g is less than twice hold_back_seconds", float64(s.Window))
	}
	c.within("priority", float64(s.Priority), 0, MaxPriority, "")
	c.rules("require", s.Require)
	c.rules("prefer", s.Prefer)
	return c.err("stream")
}

func (c *checker) rules(field string, rules []Rule) {
	if len(rules) > MaxRules {
		c.fail(field, "more than %d rules", MaxRules)
		return
	}
	for i, r := range rules {
		_, _, _, err := r.Parse()
		c.grammar(fmt.Sprintf("%s[%d]", field, i), err)
	}
}

// VideoCodecs are the codecs that a rendition may have. hevc and av1 are made by
// GPUs alone.
func VideoCodecs() []string { return []string{"h264", "hevc", "av1"} }

// Presets are x264's names, fastest first, that a rendition may ask for.
func Presets() []string {
	return []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"}
}

// Validate checks a profile. Its error is a *ValidationError.
func (p Profile) Validate() error {
	var c checker
	c.grammar("name", CheckName(p.Name))
	c.within("segment_seconds", float64(p.Segment), 1, 10, " s")
	if len(p.Video)+len(p.Audio) == 0 {
		c.fail("video", "the profile has no rendition")
	}
	if len(p.Video) > MaxVideoRenditions {
		c.fail("video", "more than %d renditions", MaxVideoRenditions)
	}
	if len(p.Audio) > MaxAudioRenditions {
		c.fail("audio", "more than %d renditions", MaxAudioRenditions)
	}
	seen := map[string]bool{}
	name := func(at, n string) {
		c.grammar(at+".name", CheckRenditionName(n))
		if seen[n] {
			c.fail(at+".name", "%s is used twice", clip(n))
		}
		seen[n] = true
	}
	for i, v := range p.Video {
		at := fmt.Sprintf("video[%d]", i)
		name(at, v.Name)
		c.video(at, p, v)
	}
	for i, a := range p.Audio {
		at := fmt.Sprintf("audio[%d]", i)
		name(at, a.Name)
		c.oneOf(at+".codec", a.Codec, "aac")
		c.within(at+".bitrate", float64(a.Bitrate), 16_000, 512_000, " bit/s")
		c.within(at+".channels", float64(a.Channels), 1, 2, "")
	}
	return c.err("profile")
}

func (c *checker) video(at string, p Profile, v VideoRendition) {
	c.oneOf(at+".codec", v.Codec, VideoCodecs()...)
	for _, d := range []struct {
		field string
		v     int
	}{{".width", v.Width}, {".height", v.Height}} {
		c.within(at+d.field, float64(d.v), 16, MaxDimension, "")
		if d.v%2 != 0 {
			c.fail(at+d.field, "%d is odd", d.v)
		}
	}
	if v.FPS != 0 {
		c.within(at+".fps", v.FPS, 1, MaxFPS, " (or 0: the source's own)")
	}
	c.within(at+".bitrate", float64(v.Bitrate), 32_000, 100_000_000, " bit/s")
	c.within(at+".keyframe_seconds", float64(v.Keyframe), 0.5, 10, " s")
	if n := float64(p.Segment) / float64(v.Keyframe); math.Abs(n-math.Round(n)) > 1e-6 || math.Round(n) < 1 {
		c.fail(at+".keyframe_seconds", "%g does not divide segment_seconds %g", float64(v.Keyframe), float64(p.Segment))
	}
	if v.Keyframe != p.Video[0].Keyframe {
		c.fail(at+".keyframe_seconds", "%g differs from the first rendition's %g: keyframes are aligned on every rung", float64(v.Keyframe), float64(p.Video[0].Keyframe))
	}
	c.oneOf(at+".preset", v.Preset, Presets()...)
}
