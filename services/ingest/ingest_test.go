package ingest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// TestPublish shows each way to publish that docs/ingest.md names.
func TestPublish(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.mtx.Ports
	at := func(port int) string { return r.mtx.Addr(port) }
	for _, c := range []struct {
		name, url, protocol string
		more                []string
	}{
		{"rtmp, key in the query", "rtmp://" + at(p.RTMP) + "/live/demo?key=sesame", "rtmp", nil},
		{"rtmp, as OBS has it: a server and a stream key", "rtmp://" + at(p.RTMP), "rtmp",
			[]string{"-rtmp_app", "live", "-rtmp_playpath", "demo?key=sesame"}},
		{"rtmp, key as the password", "rtmp://" + at(p.RTMP) + "/live/demo?user=me&pass=sesame", "rtmp", nil},
		{"rtsp, key in the query", "rtsp://" + at(p.RTSP) + "/live/demo?key=sesame", "rtsp", nil},
		{"rtsp, key as the password", "rtsp://me:sesame@" + at(p.RTSP) + "/live/demo", "rtsp", nil},
		{"srt, key in the stream id", "srt://" + at(p.SRT) + "?streamid=publish:live/demo:key=sesame&pkt_size=1316", "srt", nil},
		{"srt, key as the password", "srt://" + at(p.SRT) + "?streamid=publish:live/demo:me:sesame&pkt_size=1316", "srt", nil},
		{"srt, standard stream id", "srt://" + at(p.SRT) + "?streamid=#!::m=publish,r=live/demo,s=sesame&pkt_size=1316", "srt", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			pub := r.push(c.url, c.more...)
			got := r.live("demo")
			if got.Protocol != c.protocol || !strings.HasPrefix(got.Remote, "127.0.0.1") {
				t.Errorf("reported %+v, want protocol %s from 127.0.0.1", got, c.protocol)
			}
			if !slices.Equal(got.Tracks, []string{"H264", "MPEG-4 Audio"}) {
				t.Errorf("tracks %q", got.Tracks)
			}
			if ask := r.api.lastAsk(); ask.Conn != got.Session || ask.Protocol != c.protocol {
				t.Errorf("claimed as %+v, reported as %+v", ask, got)
			}
			pub.Kill()
			testkit.Eventually(t, wait, "the end to be reported", func() error {
				if q, ok := r.api.path("demo"); ok {
					return fmt.Errorf("still there: %+v", q)
				}
				return nil
			})
		})
	}
	for _, line := range []string{r.log.String(), r.mtx.Output()} {
		if strings.Contains(line, "sesame") {
			t.Errorf("a stream key is in a log:\n%s", line)
		}
	}
	if strings.Contains(r.log.String(), "refused") {
		t.Error("something was refused: RTSP's first try without credentials must not count")
	}
	testkit.Eventually(t, wait, "hooks", func() error {
		if s := scrape(t, r.agent); !strings.Contains(s, `hooks_total{event="ready"}`) || !strings.Contains(s, `hooks_total{event="not-ready"}`) {
			return errors.New(s)
		}
		return nil
	})
}

func scrape(t *testing.T, a *Agent) string {
	t.Helper()
	res, err := http.Get("http://" + a.Addr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.api.set(func() { r.api.disabled["other"] = true })
	p := r.mtx.Ports
	rtmp, rtsp, srt := "rtmp://"+r.mtx.Addr(p.RTMP), "rtsp://"+r.mtx.Addr(p.RTSP), "srt://"+r.mtx.Addr(p.SRT)
	for _, c := range []struct{ name, url, reason string }{
		{"wrong key rtmp", rtmp + "/live/demo?key=simsim", reasonBadKey},
		{"wrong key rtsp", rtsp + "/live/demo?key=simsim", reasonBadKey},
		{"wrong password rtsp", "rtsp://me:simsim@" + r.mtx.Addr(p.RTSP) + "/live/demo", reasonBadKey},
		{"wrong key srt", srt + "?streamid=publish:live/demo:key=simsim", reasonBadKey},
		{"no key rtmp", rtmp + "/live/demo", reasonNoKey},
		{"no key rtsp", rtsp + "/live/demo", reasonNoKey},
		{"unknown stream", rtmp + "/live/nobody?key=sesame", reasonUnknown},
		{"disabled", rtmp + "/live/other?key=open", reasonDisabled},
		{"path of another shape", rtmp + "/studio/demo?key=sesame", reasonPath},
		{"path that goes up", rtsp + "/live/../demo?key=sesame", reasonPath},
		{"path of a rendition", rtmp + "/live/demo/720p?key=sesame", reasonPath},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.log.reset()
			r.agent.quiet.mu.Lock()
			clear(r.agent.quiet.said) // each is to be said again
			r.agent.quiet.mu.Unlock()
			r.refused(r.push(c.url), c.reason)
			if out := scrape(t, r.agent); !strings.Contains(out, `publish_refused_total{reason="`+c.reason+`"}`) {
				t.Errorf("not counted:\n%s", out)
			}
		})
	}
	testkit.Eventually(t, wait, "the api to be told of the lack of a key", func() error {
		if n := r.api.unkeyed("demo"); n != 1 { // by RTMP and by RTSP, within a minute
			return fmt.Errorf("told %d times", n)
		}
		return nil
	})
	if out := r.log.String() + r.mtx.Output(); strings.Contains(out, "sesame") || strings.Contains(out, "simsim") {
		t.Errorf("a stream key is in a log:\n%s", out)
	}
	if _, ok := r.api.path("demo"); ok {
		t.Error("reported although refused")
	}
}

func TestSecondPublisherRefusedAndTakeover(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.push(r.rtmp("demo", "sesame"))
	a := r.live("demo")

	r.refused(r.push(r.rtmp("demo", "sesame")), reasonBusy)
	r.refused(r.push(r.rtmp("demo", "simsim")), reasonBadKey)
	rtsp := fmt.Sprintf("rtsp://%s/live/demo?key=sesame", r.mtx.Addr(r.mtx.Ports.RTSP))
	r.refused(r.push(rtsp), reasonBusy)
	if p := r.live("demo"); p.Session != a.Session {
		t.Fatalf("the first publisher was replaced: %+v by %+v", a, p)
	}

	if err := first.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	var took time.Duration
	testkit.Eventually(t, wait, "a second publisher to take over", func() error {
		// An encoder tries again until it is let in.
		second := r.push(r.rtmp("demo", "sesame"))
		for {
			select {
			case <-second.Done():
				return errors.New("refused")
			case <-time.After(20 * time.Millisecond):
			}
			if p, ok := r.api.path("demo"); ok && p.Session != a.Session && p.Ready {
				took = time.Since(stopped)
				return nil
			}
		}
	})
	t.Logf("took over %v after the first one stopped", took.Round(10*time.Millisecond))
	if took < 2*time.Second {
		t.Errorf("took over after %v, before the first one was silent for 2 s", took)
	}
	if !r.api.lastAsk().Takeover {
		t.Error("the api was not told that it is a takeover")
	}
	b := r.live("demo")

	// The old one wakes up: it must not get back.
	if err := first.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Done():
	case <-time.After(wait):
		t.Fatal("the silent publisher was not disconnected")
	}
	if p := r.live("demo"); p.Session != b.Session {
		t.Errorf("the stream went from %+v to %+v", b, p)
	}
}

func TestRTSPOverUDPIsOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.push("rtsp://"+r.mtx.Addr(r.mtx.Ports.RTSP)+"/live/demo?key=sesame", "-rtsp_transport", "udp")
	select {
	case <-p.Done():
	case <-time.After(wait):
		t.Fatal("it publishes")
	}
	if out := p.Output(); !strings.Contains(out, "461") {
		t.Errorf("want 461:\n%s", out)
	}
}

func TestKick(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.mtx.Ports
	for _, url := range []string{
		r.rtmp("demo", "sesame"),
		"rtsp://" + r.mtx.Addr(p.RTSP) + "/live/demo?key=sesame",
		"srt://" + r.mtx.Addr(p.SRT) + "?streamid=publish:live/demo:key=sesame&pkt_size=1316",
	} {
		t.Run(url[:4], func(t *testing.T) {
			pub := r.push(url)
			r.live("demo")
			r.api.set(func() { r.api.kick = []string{"demo", "nobody"} })
			select {
			case <-pub.Done():
			case <-time.After(wait):
				t.Fatal("not disconnected")
			}
			r.api.set(func() { r.api.kick = nil })
			testkit.Eventually(t, wait, "the end to be reported", func() error {
				if q, ok := r.api.path("demo"); ok {
					return fmt.Errorf("still there: %+v", q)
				}
				return nil
			})
		})
	}
}

func TestAPIAway(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pub := r.push(r.rtmp("demo", "sesame"))
	r.live("demo")
	r.api.set(func() { r.api.away = true })
	pub.Kill()

	t.Run("an accepted publisher returns", func(t *testing.T) {
		pub := r.push(r.rtmp("demo", "sesame"))
		testkit.Eventually(t, wait, "it to be live", func() error {
			if _, ok := r.agent.book.session("demo"); !ok || !strings.Contains(r.log.String(), "by an earlier grant") {
				return errors.New("not live")
			}
			return nil
		})
		r.refused(r.push(r.rtmp("demo", "sesame")), reasonBusy)
		pub.Kill()
	})
	t.Run("with another key it does not", func(t *testing.T) {
		r.refused(r.push(r.rtmp("demo", "simsim")), reasonAway)
	})
	t.Run("one never accepted does not", func(t *testing.T) {
		r.refused(r.push(r.rtmp("other", "open")), reasonAway)
	})
	t.Run("it is degraded, and ready", func(t *testing.T) {
		testkit.Eventually(t, wait, "degraded", func() error {
			status, body := get(t, "http://"+r.agent.Addr()+"/readyz")
			if status != http.StatusOK || !strings.Contains(body, `"degraded"`) {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	})
	t.Run("back", func(t *testing.T) {
		r.api.set(func() { r.api.away = false })
		testkit.Eventually(t, wait, "ready", func() error {
			status, body := get(t, "http://"+r.agent.Addr()+"/readyz")
			if status != http.StatusOK || !strings.Contains(body, `"ready"`) {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	})
	t.Run("a hanging api holds mediamtx for little", func(t *testing.T) {
		hang := make(chan struct{})
		r.api.set(func() { r.api.hang = hang })
		defer close(hang)
		start := time.Now()
		pub := r.push(r.rtmp("demo", "sesame"))
		testkit.Eventually(t, wait, "it to be live", func() error {
			if s, ok := r.agent.book.session("demo"); !ok || s.Bytes == 0 {
				return errors.New("not live")
			}
			return nil
		})
		t.Logf("live after %v", time.Since(start))
		pub.Kill()
	})
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestAgentRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.push(r.rtmp("demo", "sesame"))
	a := r.live("demo")
	r.stop(r.agent)
	r.api.set(func() { r.api.reports = nil })
	r.start()
	if b := r.live("demo"); b.Session != a.Session || b.Remote != a.Remote {
		t.Errorf("was %+v, after the restart %+v", a, b)
	}
	r.refused(r.push(r.rtmp("demo", "sesame")), reasonBusy)
}

func TestMediaMTXRestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.push(r.rtmp("demo", "sesame"))
	a := r.live("demo")
	r.mtx.Kill()
	testkit.Eventually(t, wait, "not ready", func() error {
		if status, body := get(t, "http://"+r.agent.Addr()+"/readyz"); status != http.StatusServiceUnavailable {
			return errors.New(body)
		}
		return nil
	})
	r.mtx.Restart()
	r.push(r.rtmp("demo", "sesame"))
	testkit.Eventually(t, wait, "the new session to be reported", func() error {
		if p, ok := r.api.path("demo"); !ok || p.Session == a.Session {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

func TestRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.push(r.rtmp("demo", "sesame"))
	r.live("demo")
	rtsp, rtmp := r.mtx.Addr(r.mtx.Ports.RTSP), r.mtx.Addr(r.mtx.Ports.RTMP)
	for _, c := range []struct {
		name, url string
		ok        bool
	}{
		{"rtsp with a token", "rtsp://" + rtsp + "/live/demo?token=read:live/demo", true},
		{"rtmp with a token", "rtmp://" + rtmp + "/live/demo?token=read:live/demo", true},
		{"rtsp without", "rtsp://" + rtsp + "/live/demo", false},
		{"rtmp without", "rtmp://" + rtmp + "/live/demo", false},
		{"rtsp with another stream's", "rtsp://" + rtsp + "/live/demo?token=read:live/other", false},
		{"rtmp with the stream key", "rtmp://" + rtmp + "/live/demo?key=sesame", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"}
			if strings.HasPrefix(c.url, "rtsp") {
				args = append(args, "-rtsp_transport", "tcp")
			}
			ctx := t.Context()
			out, err := exec.CommandContext(ctx, testkit.Part(t, "DIONYSIA_FFPROBE", "ffprobe"), append(args, c.url)...).CombinedOutput()
			if ok := err == nil && strings.Contains(string(out), "h264"); ok != c.ok {
				t.Errorf("read: %v, want %v: %v\n%s", ok, c.ok, err, out)
			}
		})
	}
}
