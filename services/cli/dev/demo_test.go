package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/store"
)

// commands returns the command lines of all processes, which any user may see.
func commands(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	var out []string
	for _, f := range files {
		b, _ := os.ReadFile(f) // one that has ended since has none
		out = append(out, strings.ReplaceAll(string(b), "\x00", " "))
	}
	return out
}

// TestDemoHidesItsKey publishes the test picture to a real mediamtx, which is
// shown the stream's key; the machine's users are not.
func TestDemoHidesItsKey(t *testing.T) {
	asked := make(chan string, 100)
	agent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var in struct{ Action, Path, Query string }
		if err := json.NewDecoder(r.Body).Decode(&in); err == nil && in.Action == "publish" {
			asked <- in.Path + "?" + in.Query
		}
	}))
	defer agent.Close()
	mtx := testkit.StartMediaMTX(t, func(p testkit.MediaMTXPorts) []byte {
		return fmt.Appendf(nil, "api: yes\napiAddress: 127.0.0.1:%d\nrtmpAddress: 127.0.0.1:%d\nrtsp: no\nhls: no\nwebrtc: no\nsrt: no\n"+
			"authMethod: http\nauthHTTPAddress: %s\npaths: {all_others: {}}\n", p.API, p.RTMP, agent.URL)
	})
	redis := testkit.NewRedis(t)
	st, err := store.Open(t.Context(), store.Options{StateURL: redis.URL(0), LiveURL: redis.URL(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	d := &Dev{DataDir: t.TempDir(), DemoProfile: DemoProfile, Ports: Ports{RTMP: mtx.Ports.RTMP},
		Parts: Parts{FFmpeg: testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg")}, log: hclog.NewNullLogger()}
	if err := os.Mkdir(d.logs(), 0o700); err != nil {
		t.Fatal(err)
	}
	preset := d.file("demo.ffpreset")
	if err := os.WriteFile(preset, []byte("left behind"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.startDemo(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	closed := false
	end := func() {
		if !closed {
			d.closeAll()
		}
		closed = true
	}
	defer end()

	var key string
	select {
	case got := <-asked:
		ok := false
		if key, ok = strings.CutPrefix(got, "live/demo?key="); !ok {
			t.Fatalf("published to %q", got)
		}
	case <-time.After(60 * time.Second):
		log, _ := os.ReadFile(filepath.Join(d.logs(), "demo.log"))
		t.Fatalf("mediamtx was not asked about a publisher; ffmpeg:\n%s", log)
	}
	hash, err := st.StreamKeyHash(context.Background(), demoStream)
	if err != nil || !auth.CheckKey(hash, key) {
		t.Errorf("what was sent is not the stream's key (%v)", err)
	}
	if info, err := os.Stat(preset); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the key: %v, %v", info, err)
	}
	publishers := 0
	for _, c := range commands(t) {
		if strings.Contains(c, key) {
			t.Error("the key is in a command line")
		}
		if strings.Contains(c, preset) {
			publishers++
		}
	}
	if publishers != 1 {
		t.Errorf("%d processes were given the file", publishers)
	}
	end()
	if _, err := os.Stat(preset); !os.IsNotExist(err) {
		t.Errorf("the file with the key is left behind: %v", err)
	}
}
