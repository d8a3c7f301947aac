package ingest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestMediaMTXConfig(t *testing.T) {
	got, err := MediaMTXConfig(MediaMTXParams{
		RTMP: ":1935", RTSP: ":8554", SRT: ":8890", WebRTC: ":8889", ICE: ":8189", ICEHosts: []string{"192.0.2.7"},
		API: "127.0.0.1:9997", AgentURL: "http://127.0.0.1:8092", Secret: testSecret{}, Hook: []string{"/opt/it's here/dionysia", "hook"},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "mediamtx.yml")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("UPDATE_GOLDEN=1 rewrites it (-want +got):\n%s", diff)
	}
	for name, p := range map[string]MediaMTXParams{
		"no agent":             {Secret: testSecret{}},
		"agent without scheme": {AgentURL: "127.0.0.1:8092", Secret: testSecret{}},
		"$ in the hook":        {AgentURL: "http://127.0.0.1:8092", Secret: testSecret{}, Hook: []string{"/opt/$HOME/dionysia"}},
	} {
		if _, err := MediaMTXConfig(p); !errors.Is(err, stream.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for line, want := range map[string]string{
		"INF [SRT] [conn 127.0.0.1:1] closed: invalid stream ID 'live/demo?key=sesame': stream ID must be": "INF [SRT] [conn 127.0.0.1:1] closed: invalid stream ID '…': stream ID must be",
		"WAR [RTSP] rtsp://me:sesame@host/live/demo?token=sesame&x=1":                                      "WAR [RTSP] rtsp://me:…@host/live/demo?token=…&x=1",
		"ERR broken": "ERR broken",
		"unformed":   "unformed",
	} {
		if got := Redact(line); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
