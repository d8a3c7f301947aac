// Package gpac builds GPAC's command line for one run. It is pure but for
// Detect; what differs between versions of GPAC is only here.
//
// The shape, one dasher for each rendition so that file names are ours (one
// dasher for all of them numbers its representations in an unstable order on
// 1.0.1, and a template for each of its inputs writes freed memory as names):
//
//	ffdmx ─┬─ video ─[fromkey.js]─[thin.js]─ ffsws ─ ffenc (x264 or NVENC) ─ dasher ─ <rendition>_init.mp4, <rendition>_<n>.m4s
//	       └─ audio ─[resample]─ align.js ─ ffenc aac ─[nodelay.js]─ dasher ─ …
//
// The scripts are ours, run by GPAC's JavaScript filter; what fromkey.js (for
// RTSP sources) and thin.js (for rungs with a capped frame rate) are for is said in
// them. There is one align.js for each audio rendition. Without it GPAC stamps an
// RTMP source's audio in milliseconds, with packets 0, 21 or 42 ms after each
// other, on 1.0.1 sound two frames late; and each dasher cuts k segments after its own first packet, so that audio was cut 1.2 s before
// video. Measured with it over 75 s each, the machine loaded, from RTMP (AAC, 48
// kHz stereo and 44.1 kHz mono) and RTSP (Opus): all packets 1024 samples apart,
// sound 3 to 9 ms after its picture, each audio segment begun within 32 ms of
// video's, no picture lost. It runs without memory growing. A resampler behind it
// would spoil the times again, so it gives the encoder's own sample format.
// libavfilter can't do it: 1.0.1 takes only the first plane of its audio.
//
// Measured on 1.0.1: a segment's file is created, written and closed within
// 1 to 35 ms when it is complete, as one styp, moof and mdat.
//
// Ubuntu 24.04's 2.2.1 was run beside Debian 11's 1.0.1: with what is said where
// Version.legacy is asked, both give the same packets at the same times. Newer ones
// get 2.2.1's form; they were not run with it.
package gpac

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// ErrSpec is wrapped by Build's errors.
var ErrSpec = errors.New("invalid run")

// Spec is what a run is built from.
type Spec struct {
	Version Version
	// Source is rtmp://host:port/path or rtsp://host:port/path, with an optional
	// query of one token. RTSP is pulled over TCP.
	Source string
	Media  stream.SourceMedia // what the source carries
	// Parameters are the parameter sets of the video that its SDP has, each a NAL
	// unit without a start code, in their order. Without any they are in the stream.
	Parameters [][]byte
	Ladder     stream.Ladder
	// GPU encodes the video by NVENC: the card's UUID as NVML gives it, in lower
	// case. Empty is the CPU, with x264, which makes h264 alone.
	GPU string
	// Keep is how long GPAC must leave old segments alone. It deletes them
	// later, so that a run without an origin can't fill the disk.
	Keep time.Duration
}

// Command is a program's arguments and what it needs beside them. It must run in
// the run's directory: all its files have relative names.
type Command struct {
	Args []string
	// Files are to be in the run's directory before: contents by name.
	Files map[string]string
	// Env is the whole environment but HOME and TMPDIR.
	Env []string
}

// The grammars of everything that goes into an argument. They leave out all of
// GPAC's separators (: = # , @ !), its templates ($), and quotes, spaces and
// backslashes; in URLs, which end at ":gpac:", ':' and '=' are where they belong.
var (
	nameGrammar   = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$`)
	presetGrammar = regexp.MustCompile(`^[a-z]{1,16}$`)
	urlGrammar    = regexp.MustCompile(`^(rtmp|rtsp)://([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?(/[A-Za-z0-9_-]{1,63}){1,8}(\?token=[A-Za-z0-9._-]{1,1000})?$`)
)

// Build returns the command of a run. Its error wraps ErrSpec and names the
// field, not a token.
func Build(s Spec) (Command, error) {
	if err := s.check(); err != nil {
		return Command{}, err
	}
	logs := "-logs=all@warning:ncl"
	if !s.Version.legacy() { // its dasher warns of each segment, about manifests that are not used
		logs = "-logs=all@warning:dash@error:ncl"
	}
	args := []string{"-p=0", logs}
	if !s.mixes() {
		args = append(args, "-blacklist=faad,maddec,a52dec")
	}
	args = append(args, s.source())
	if s.fromKey() {
		args = append(args, "jsf:js=fromkey.js:SID=S#video:FID=K01")
	}
	for i, v := range s.Ladder.Video {
		args = append(args, s.video(i, v)...)
	}
	for i, a := range s.Ladder.Audio {
		args = append(args, s.audio(i, a)...)
	}
	for i, v := range s.Ladder.Video {
		args = append(args, "-o", s.output(v.Name, id("E", i)))
	}
	for i, a := range s.Ladder.Audio {
		from := id("B", i)
		if !s.Version.legacy() {
			from = id("D", i)
		}
		args = append(args, "-o", s.output(a.Name, from))
	}
	return Command{Args: args, Files: s.scripts(), Env: Env(s.GPU)}, nil
}

// id names a filter. No id may be the beginning of another: 1.0.1 matches an
// SID to every id that begins with it.
func id(kind string, i int) string { return fmt.Sprintf("%s%02d", kind, i+1) }

func (s Spec) rtsp() bool { return s.Source[:4] == "rtsp" }

// source is the demuxer.
func (s Spec) source() string {
	// Analysing ends at the first keyframe, once every track is known. RTMP does
	// not say how many there are: without audio it would go on for all of
	// analyzeduration. Frames are kept meanwhile, so 2 s do not delay the first
	// segment.
	analyse := 5_000_000
	if !s.rtsp() && s.Media.Audio == nil {
		analyse = 2_000_000
	}
	opts := fmt.Sprintf("probesize=5000000:analyzeduration=%d:fpsprobesize=3", analyse)
	if s.rtsp() {
		opts = "rtsp_transport=tcp:" + opts
	}
	src := "ffdmx:src=" + s.Source + ":gpac:" + opts + ":FID=S"
	if fps := s.sourceRate(); !fps.IsZero() {
		src += fmt.Sprintf(":#FPS=%d/%d", fps.Num, fps.Den)
	}
	return src
}

func (s Spec) video(i int, v stream.OutVideo) []string {
	var args []string
	in := "S#video"
	if s.fromKey() {
		in = "K01"
	}
	if v.FrameStep > 1 {
		step := id("P", i)
		args = append(args, fmt.Sprintf("jsf:js=%s:SID=%s:FID=%s", thinFile(v.FrameStep), in, step))
		in = step
	}
	gops := max(1, math.Round(float64(s.Ladder.Segment)*frameRate(v).Float()/float64(v.GOP)))
	return append(args,
		fmt.Sprintf("ffsws:osize=%dx%d:SID=%s:FID=%s", v.Width, v.Height, in, id("R", i)),
		fmt.Sprintf("%s:SID=%s:FID=%s:#Bitrate=%d", s.encoder(v, int64(gops)), id("R", i), id("E", i), v.Bitrate))
}

// mixes reports whether an audio rendition has fewer channels than the source,
// and 1.0.1 mixes them itself: its mixer understands only the packed samples of its own
// AAC decoder. That decoder, through the resampler, feeds the encoder times that
// jump and repeat once or twice in the first seconds, so it is not used else.
func (s Spec) mixes() bool {
	src := s.Media.Audio
	if src == nil || src.Codec != "aac" || !s.Version.legacy() {
		return false
	}
	for _, a := range s.Ladder.Audio {
		if a.Channels < src.Channels {
			return true
		}
	}
	return false
}

func (s Spec) audio(i int, a stream.OutAudio) []string {
	var args []string
	in := "S#audio"
	src := s.Media.Audio
	channels := a.Channels
	if !s.mixes() && src != nil && src.Channels > 0 {
		channels = src.Channels // as they are; 2.x has them mixed by align.js
	}
	if src == nil || src.Channels != channels || src.SampleRate != a.SampleRate {
		in = id("A", i)
		opts := fmt.Sprintf("och=%d:osr=%d:SID=S#audio:FID=%s", channels, a.SampleRate, in)
		if s.Version.legacy() { // it would pass on the source's layout
			opts = fmt.Sprintf("ch=%d:sr=%d:SID=S#audio:FID=%s:#ChannelLayout=%d", channels, a.SampleRate, in, map[bool]int{true: 4, false: 3}[channels == 1])
		}
		args = append(args, "resample:"+opts)
	}
	from := in
	if len(s.Ladder.Video) > 0 {
		// Pictures as they go to the encoder. Not encoded ones: the dasher that
		// follows an encoder has its id too, and manifests would come.
		from += "," + id("R", 0)
	}
	in = id("J", i)
	args = append(args, fmt.Sprintf("jsf:js=%s:SID=%s:FID=%s", s.alignFile(a), from, in))
	args = append(args, fmt.Sprintf("ffenc:c=aac:b=%d:SID=%s:FID=%s:#Bitrate=%d", a.Bitrate, in, id("B", i), a.Bitrate))
	if !s.Version.legacy() {
		args = append(args, fmt.Sprintf("jsf:js=nodelay.js:SID=%s:FID=%s", id("B", i), id("D", i)))
	}
	return args
}

// output is a rendition's dasher. tsb bounds what GPAC leaves on disk.
func (s Spec) output(name, from string) string {
	ms := s.segmentMillis()
	// 0.1 µs more, since 1.0.1 rounds segdur × timescale down.
	return fmt.Sprintf("%s.mpd:gpac:SID=%s:dmode=dynamic:profile=live:segdur=%d.%03d0001:tsb=%d:template=%s_$Number$",
		name, from, ms/1000, ms%1000, int64(math.Ceil(s.Keep.Seconds())), name)
}

// segmentMillis is the segments' length in the unit that every timescale holds
// exactly: a grid that drifts between audio and video would part their numbers.
func (s Spec) segmentMillis() int64 { return int64(math.Round(float64(s.Ladder.Segment) * 1000)) }

func (s Spec) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrSpec, fmt.Sprintf(format, args...))
	}
	if s.Version.Major < 1 {
		return bad("no GPAC version")
	}
	if len(s.Source) > 2048 || !urlGrammar.MatchString(s.Source) {
		return bad("source URL has characters or a form that GPAC's command line can't carry")
	}
	if s.GPU != "" {
		if err := CheckGPU(s.GPU); err != nil {
			return err
		}
	}
	if s.Keep <= 0 {
		return bad("keep %s", s.Keep)
	}
	if ms := s.segmentMillis(); ms < 200 || ms > 60_000 {
		return bad("segments of %d ms", ms)
	}
	if n := len(s.Ladder.Video) + len(s.Ladder.Audio); n == 0 || n > 32 {
		return bad("%d renditions", n)
	}
	seen := map[string]bool{}
	name := func(n string) error {
		if !nameGrammar.MatchString(n) || seen[n] {
			return bad("rendition name %q", n)
		}
		seen[n] = true
		return nil
	}
	for _, v := range s.Ladder.Video {
		if err := name(v.Name); err != nil {
			return err
		}
		if why := s.checkEncoder(v); why != "" {
			return bad("%s", why)
		}
		if v.Width < 2 || v.Height < 2 || v.Width%2+v.Height%2 != 0 || v.GOP < 1 || v.FrameStep < 1 || v.Bitrate < 1 || v.FPS.Num < 0 || v.FPS.Den < 0 {
			return bad("%s: %dx%d, GOP %d, frame step %d, %d bit/s", v.Name, v.Width, v.Height, v.GOP, v.FrameStep, v.Bitrate)
		}
	}
	for _, a := range s.Ladder.Audio {
		if err := name(a.Name); err != nil {
			return err
		}
		if a.Codec != "aac" || a.Channels < 1 || a.Channels > 2 || a.SampleRate < 1 || a.Bitrate < 1 {
			return bad("%s: codec %q, %d channels, %d Hz, %d bit/s", a.Name, a.Codec, a.Channels, a.SampleRate, a.Bitrate)
		}
	}
	return nil
}

var tokenInURL = regexp.MustCompile(`token=[^:&\s"']+`)

// Mask hides read tokens in text that came from GPAC or its command line.
func Mask(text string) string { return tokenInURL.ReplaceAllString(text, "token=***") }

// Quote renders the command for a log, without tokens.
func (c Command) String() string {
	out := "gpac"
	for _, a := range c.Args {
		out += " " + strconv.Quote(a)
	}
	return Mask(out)
}
