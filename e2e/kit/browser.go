package kit

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/players"
)

// Report is what a page of e2e/players recorded; see record.js.
type Report struct {
	Player   string   `json:"player"`
	Started  bool     `json:"started"`
	StartedS float64  `json:"startedAt"` // seconds after the page's load
	Ended    bool     `json:"ended"`
	Current  float64  `json:"current"`  // currentTime
	Ahead    float64  `json:"ahead"`    // seconds buffered ahead of it
	MinAhead *float64 `json:"minAhead"` // the least, from 3 s after the start on
	Width    int      `json:"width"`
	Height   int      `json:"height"`
	Frames   int      `json:"frames"`
	Dropped  int      `json:"dropped"`
	Colours  int      `json:"colours"` // coarse colours in the picture; 1 is a blank one
	Changes  int      `json:"changes"` // half-second looks at which the picture had changed
	Played   float64  `json:"played"`  // media seconds
	Elapsed  float64  `json:"elapsed"` // wall seconds since the start, pauses left out
	Stuck    float64  `json:"stuck"`   // seconds that the picture has stood still just now
	Latency  *float64 `json:"latency"` // the player's own idea of it, s
	Status   int      `json:"status"`  // WHIP's answer
	Stalls   []struct {
		At      float64 `json:"at"`
		Seconds float64 `json:"seconds"`
		T       float64 `json:"t"`
	} `json:"stalls"`
	Jumps []struct {
		At   float64 `json:"at"`
		From float64 `json:"from"`
		To   float64 `json:"to"`
	} `json:"jumps"`
	Errors  []Remark    `json:"errors"` // the player recovered
	Fatal   []Remark    `json:"fatal"`
	Events  []Remark    `json:"events"`
	Levels  []Remark    `json:"levels"`
	Samples [][]float64 `json:"samples"` // wall, currentTime, ahead; each second

	received time.Time
}

// Remark is one entry of a Report's lists.
type Remark struct {
	At      float64 `json:"at"`
	Type    string  `json:"type,omitempty"`
	T       float64 `json:"t,omitempty"`
	Message string  `json:"message,omitempty"`
	URL     string  `json:"url,omitempty"`
	Level   int     `json:"level,omitempty"`
	Height  int     `json:"height,omitempty"`
}

// StallSeconds returns the sum of the stalls, one that still lasts included.
func (r Report) StallSeconds() float64 {
	sum := 0.0
	for _, s := range r.Stalls {
		sum += s.Seconds
	}
	if r.Stuck > 0.3 && !r.Ended {
		sum += r.Stuck
	}
	return sum
}

// Since returns the report with only what happened after the earlier one.
func (r Report) Since(old Report) Report {
	r.Stalls = tail(r.Stalls, len(old.Stalls))
	r.Jumps = tail(r.Jumps, len(old.Jumps))
	r.Errors = tail(r.Errors, len(old.Errors))
	r.Fatal = tail(r.Fatal, len(old.Fatal))
	r.Events = tail(r.Events, len(old.Events))
	return r
}

func tail[E any](list []E, from int) []E { return list[min(from, len(list)):] }

// PlayerServer serves the pages and takes their reports, on loopback.
type PlayerServer struct {
	URL string

	mu      sync.Mutex
	reports map[string]Report
	serial  int
}

// StartPlayers starts a server of player pages for the test's length.
func StartPlayers(t T) *PlayerServer {
	t.Helper()
	s := &PlayerServer{reports: map[string]Report{}}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(players.Files))
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServer(http.Dir(WebDir(t)))))
	mux.HandleFunc("POST /report/{id}", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		rep := Report{received: time.Now()}
		if err == nil {
			err = json.Unmarshal(b, &rep)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.reports[r.PathValue("id")] = rep
		s.mu.Unlock()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("serving the players: %v", err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	s.URL = "http://" + l.Addr().String()
	return s
}

// Page is one headless Chromium with one page.
type Page struct {
	Proc *Proc

	s    *PlayerServer
	id   string
	what string
	dog  *Watchdog
}

// Open starts a Chromium of its own on a page: hls.html, dash.html or
// whip.html.
func (s *PlayerServer) Open(t T, page, src string, query ...string) *Page {
	t.Helper()
	s.mu.Lock()
	s.serial++
	id := fmt.Sprintf("%s-%d", strings.TrimSuffix(page, ".html"), s.serial)
	s.mu.Unlock()
	q := url.Values{"id": {id}, "src": {src}}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	profile := t.TempDir()
	p := Start(t, "chromium "+id, []string{Chromium(t), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--disable-features=MediaRouter,OptimizationHints,Translate", "--disable-extensions",
		"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
		"--autoplay-policy=no-user-gesture-required", "--mute-audio", "--use-fake-device-for-media-stream=fps=30",
		"--use-fake-ui-for-media-stream", "--allow-loopback-in-peer-connection", "--no-proxy-server",
		"--user-data-dir=" + profile, "--remote-debugging-port=0", s.URL + "/" + page + "?" + q.Encode()},
		WithEnv("HOME="+profile))
	pg := &Page{Proc: p, s: s, id: id, what: page + " " + src, dog: NewWatchdog(p.Pid(), profile, "")}
	t.Cleanup(func() { pg.Close(t) })
	return pg
}

// Close ends the browser, with its helpers.
func (p *Page) Close(t T) {
	t.Helper()
	p.Proc.Kill()
	for _, left := range p.dog.Left() { // helpers that left the group
		if proc, ok := ReadProcess(left.Pid); ok && proc.Start == left.Start {
			_ = killPid(left.Pid)
		}
	}
	p.dog.Close()
}

// Report returns the newest report; an error when there is none of the last 5 s.
func (p *Page) Report() (Report, error) {
	p.s.mu.Lock()
	r, ok := p.s.reports[p.id]
	p.s.mu.Unlock()
	if !ok {
		return r, fmt.Errorf("%s has sent no report (Chromium: %s)", p.what, p.Proc.Exit())
	}
	if age := time.Since(r.received); age > 5*time.Second {
		return r, fmt.Errorf("%s has sent no report for %v (Chromium: %s)", p.what, age, p.Proc.Exit())
	}
	return r, nil
}

// WaitStarted waits until the page plays (or, for WHIP, sends), and fails at
// once when its player gave up.
func (p *Page) WaitStarted(t T, limit time.Duration) Report {
	t.Helper()
	return p.WaitFor(t, limit, "starts", func(r Report) bool { return r.Started })
}

// WaitFor waits until ok says yes, and fails at once when the player gave up.
func (p *Page) WaitFor(t T, limit time.Duration, what string, ok func(Report) bool) Report {
	t.Helper()
	var r Report
	Eventually(t, limit, p.what+" "+what, func() error {
		var err error
		if r, err = p.Report(); err != nil {
			return err
		}
		if len(r.Fatal) > 0 {
			t.Fatalf("%s: fatal: %+v", p.what, r.Fatal)
		}
		if !ok(r) {
			return fmt.Errorf("not yet: %s", r)
		}
		return nil
	})
	return r
}

// Play waits until the page has been playing for d more and returns its
// report; it fails t as soon as the player gives up.
func (p *Page) Play(t T, d time.Duration) Report {
	t.Helper()
	r := p.WaitFor(t, 30*time.Second, "reports", func(Report) bool { return true })
	return p.PlayTotal(t, d+time.Duration(r.Elapsed*float64(time.Second)))
}

// PlayTotal waits until the page has been playing for d since its start.
func (p *Page) PlayTotal(t T, d time.Duration) Report {
	t.Helper()
	return p.WaitFor(t, d+20*time.Second, fmt.Sprintf("plays for %v", d), func(r Report) bool { return r.Elapsed >= d.Seconds() || r.Ended })
}

// String sums the report up.
func (r Report) String() string {
	least := -1.0
	if r.MinAhead != nil {
		least = *r.MinAhead
	}
	latency := -1.0
	if r.Latency != nil {
		latency = *r.Latency
	}
	return fmt.Sprintf("%s: started=%v after %.1f s, at %.2f, played %.2f of %.2f s, buffered %.2f s (least %.2f), latency %.1f s, %dx%d, %d frames (%d dropped), stalls %v, jumps %v, errors %v, fatal %v",
		r.Player, r.Started, r.StartedS, r.Current, r.Played, r.Elapsed, r.Ahead, least, latency, r.Width, r.Height, r.Frames, r.Dropped, r.Stalls, r.Jumps, r.Errors, r.Fatal)
}

// ExpectSmooth fails t unless the page has played for at least d without a
// stall, a jump, an error or a blank or frozen picture.
func (r Report) ExpectSmooth(t T, d time.Duration) {
	t.Helper()
	t.Logf("%s", r)
	if r.Elapsed < d.Seconds() {
		t.Errorf("%s: played only for %.1f s", r.Player, r.Elapsed)
	}
	if r.StallSeconds() > 0 || len(r.Jumps) > 0 {
		t.Errorf("%s: stalls %+v, standing still for %.2f s now, jumps %+v; events %+v", r.Player, r.Stalls, r.Stuck, r.Jumps, r.Events)
	}
	if len(r.Errors)+len(r.Fatal) > 0 {
		t.Errorf("%s: errors %+v, fatal %+v", r.Player, r.Errors, r.Fatal)
	}
	if r.MinAhead == nil || *r.MinAhead < 0.5 {
		t.Errorf("%s: the buffer fell under half a second: %v", r.Player, r.Samples)
	}
	if r.Colours < 3 || float64(r.Changes) < r.Elapsed {
		t.Errorf("%s: the picture is blank or frozen: %d colours, %d changes in %.0f s", r.Player, r.Colours, r.Changes, r.Elapsed)
	}
}
