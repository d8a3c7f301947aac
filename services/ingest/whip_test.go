package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// whipPage publishes the browser's fake camera and microphone: the URL and the
// bearer token come in its query.
const whipPage = `<!doctype html><title>starting</title><script>
(async () => {
  const q = new URLSearchParams(location.search);
  const say = (s) => fetch("/say", {method: "POST", body: s});
  try {
    const media = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240}, audio: true});
    const pc = new RTCPeerConnection();
    pc.onconnectionstatechange = () => say(pc.connectionState);
    for (const t of media.getTracks()) {
      const tr = pc.addTransceiver(t, {direction: "sendonly", streams: [media]});
      if (t.kind === "video") {
        const all = RTCRtpSender.getCapabilities("video").codecs;
        tr.setCodecPreferences(all.filter(c => c.mimeType === "video/H264"));
      }
    }
    await pc.setLocalDescription();
    await new Promise(ok => { if (pc.iceGatheringState === "complete") ok(); else pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && ok(); setTimeout(ok, 2000); });
    const headers = {"Content-Type": "application/sdp"};
    if (q.get("bearer")) headers.Authorization = "Bearer " + q.get("bearer");
    const res = await fetch(q.get("url"), {method: "POST", headers, body: pc.localDescription.sdp});
    if (res.status !== 201) { say("status " + res.status + " " + await res.text()); return; }
    await pc.setRemoteDescription({type: "answer", sdp: await res.text()});
  } catch (e) { say("error " + e); }
})();
</script>`

// browse opens the page in a headless browser and returns what it says.
func browse(t *testing.T, query string) (said chan string, browser *testkit.Process) {
	t.Helper()
	said = make(chan string, 64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/say" {
			b := make([]byte, 512)
			n, _ := r.Body.Read(b) // short; one read has it all
			select {
			case said <- string(b[:n]):
			default:
			}
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, whipPage)
	}))
	t.Cleanup(srv.Close)
	cmd := exec.Command(testkit.Part(t, "DIONYSIA_CHROMIUM", "chromium"), "--headless=new", "--no-sandbox",
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--user-data-dir="+t.TempDir(),
		"--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", srv.URL+"/?"+query)
	return said, testkit.StartProcess(t, "chromium", cmd)
}

// TestWHIP publishes from a browser, with each way to give the key.
func TestWHIP(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	base := "http://" + r.mtx.Addr(r.mtx.Ports.WebRTC) + "/live/demo/whip"
	for _, c := range []struct{ name, query string }{
		{"bearer", "bearer=sesame&url=" + base},
		{"query", "url=" + base + "%3Fkey=sesame"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, browser := browse(t, c.query)
			got := r.live("demo")
			if got.Protocol != "webrtc" || !slices.Equal(got.Tracks, []string{"H264", "Opus"}) && !slices.Equal(got.Tracks, []string{"Opus", "H264"}) {
				t.Errorf("reported %+v", got)
			}
			if ask := r.api.lastAsk(); ask.Conn != got.Session {
				t.Errorf("claimed as %+v, reported as %+v", ask, got)
			}
			r.refused(r.push(r.rtmp("demo", "sesame")), reasonBusy)
			r.api.set(func() { r.api.kick = []string{"demo"} })
			testkit.Eventually(t, wait, "the kick", func() error {
				if q, ok := r.api.path("demo"); ok {
					return fmt.Errorf("still there: %+v", q)
				}
				return nil
			})
			r.api.set(func() { r.api.kick = nil })
			browser.Kill()
		})
	}
	t.Run("wrong key", func(t *testing.T) {
		said, _ := browse(t, "bearer=simsim&url="+base)
		testkit.Eventually(t, wait, "the browser to be refused", func() error {
			select {
			case s := <-said:
				t.Log(s)
				if strings.HasPrefix(s, "status 4") {
					return nil
				}
				return errors.New(s)
			default:
				return errors.New("it says nothing")
			}
		})
	})
	t.Run("preflight and page", func(t *testing.T) {
		for _, c := range []struct {
			method, url, bearer string
			want                int
		}{
			{http.MethodOptions, base, "", http.StatusUnauthorized},
			{http.MethodOptions, base, "sesame", http.StatusNoContent},
			{http.MethodPost, base, "", http.StatusBadRequest},
		} {
			req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader("v=0"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/sdp")
			if c.bearer != "" {
				req.Header.Set("Authorization", "Bearer "+c.bearer)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("%s with bearer %q: %d, want %d", c.method, c.bearer, res.StatusCode, c.want)
			}
		}
	})
}
