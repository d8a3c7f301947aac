package kit

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Played is what ffmpeg reports after playing a URL.
type Played struct {
	Seconds  float64 // of media decoded
	Frames   int
	Wall     time.Duration
	Warnings []string // what it printed, less what is known to be harmless
	Err      error
}

// harmless are lines that ffmpeg prints on sound input too.
var harmless = regexp.MustCompile(`(?i)(skipping \d+ segments|Opening '|keepalive request failed|deprecated pixel format|Could not find codec parameters for stream \d+ \(Unknown|max_analyze_duration|expired from playlists|DASH request for url|Found duplicated MOOV Atom)`)

// expired is harmful all the same: segments left the list before they were read.
var expired = regexp.MustCompile(`expired from playlists|HTTP error|Failed to open|Invalid data|error while decoding|corrupt|non[- ]monoton|invalid dropping|missing picture`)

// StartFFPlay plays a URL with ffmpeg until it has decoded d of media, and
// discards it. It reads in real time, as a player does: ffmpeg's DASH reader does
// not wait at the live edge but asks for segments that aren't there yet. The result comes on the channel, at the latest after limit.
func StartFFPlay(t T, url string, d, limit time.Duration) <-chan Played {
	t.Helper()
	start := time.Now()
	progress, err := os.CreateTemp(t.TempDir(), "progress")
	if err != nil {
		t.Fatalf("%v", err)
	}
	_ = progress.Close()
	p := Start(t, "ffmpeg as player", []string{FFmpeg(t), "-hide_banner", "-nostdin", "-loglevel", "repeat+warning",
		"-re", "-i", url, "-t", fmt.Sprintf("%.3f", d.Seconds()), "-map", "0:v:0?", "-map", "0:a:0?", "-progress", progress.Name(), "-f", "null", "-"})
	out := make(chan Played, 1)
	go func() {
		r := Played{}
		select {
		case <-p.Done():
			if code := p.ExitCode(); code != 0 {
				r.Err = fmt.Errorf("ffmpeg: %s", p.Exit())
			}
		case <-time.After(limit):
			r.Err = fmt.Errorf("ffmpeg has not played %v within %v", d, limit)
			p.Kill()
		}
		r.Wall = time.Since(start)
		r.Seconds, r.Frames = readProgress(progress.Name())
		for _, line := range strings.Split(Tail(p.Log, 100_000), "\n") {
			if line = strings.TrimSpace(line); line != "" && (!harmless.MatchString(line) || expired.MatchString(line)) {
				r.Warnings = append(r.Warnings, line)
			}
		}
		out <- r
	}()
	return out
}

func readProgress(file string) (seconds float64, frames int) {
	b, _ := os.ReadFile(file)
	for _, line := range strings.Split(string(b), "\n") {
		k, v, _ := strings.Cut(line, "=")
		switch k {
		case "frame":
			frames, _ = strconv.Atoi(v)
		case "out_time_us":
			us, _ := strconv.ParseFloat(v, 64)
			seconds = us / 1e6
		}
	}
	return seconds, frames
}

// Expect fails t unless at least d was decoded without an error or a warning.
// fps, when known, also bounds the frames that were lost.
func (r Played) Expect(t T, name string, d time.Duration, fps float64) {
	t.Helper()
	t.Logf("%s: %.2f s, %d frames in %v", name, r.Seconds, r.Frames, r.Wall.Round(time.Millisecond))
	if r.Err != nil {
		t.Errorf("%s: %v", name, r.Err)
	}
	if r.Seconds < d.Seconds()-0.5 {
		t.Errorf("%s: played %.2f s of %v", name, r.Seconds, d)
	}
	// The sound of a segment may begin up to a segment earlier than its picture.
	if want := fps * d.Seconds(); fps > 0 && (float64(r.Frames) < want-fps*2.2 || float64(r.Frames) > want+fps/2) {
		t.Errorf("%s: %d frames in %v, expected %.0f", name, r.Frames, d, want)
	}
	report(t, prefixed(name, r.Warnings))
}

func prefixed(name string, lines []string) []string {
	var out []string
	for _, l := range lines {
		out = append(out, name+": "+l)
	}
	return out
}
