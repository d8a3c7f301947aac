package client

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api"
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
)

// cluster is an api on a real store, and the command line in front of it.
type cluster struct {
	t     *testing.T
	store *store.Store
	url   string
	token string // file
	stdin string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	redis := testkit.NewRedis(t)
	st, err := store.Open(t.Context(), store.Options{StateURL: redis.URL(0), LiveURL: redis.URL(1), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	server := api.New(api.Config{Listen: "127.0.0.1:0", AdminToken: "the-token", InternalToken: "other", Policy: placement.DefaultPolicy()}, api.Deps{Store: st})
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	token := filepath.Join(t.TempDir(), "admin.token")
	if err := os.WriteFile(token, []byte("the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &cluster{t: t, store: st, url: "http://" + server.Addr(), token: token}
}

// tree is the part of the command tree that this package makes.
type tree struct {
	Stream  StreamCmd  `cmd:""`
	Profile ProfileCmd `cmd:""`
	Device  DeviceCmd  `cmd:""`
	Place   PlaceCmd   `cmd:""`
	Cluster ClusterCmd `cmd:""`
	Worker  struct {
		Ls      WorkerListCmd    `cmd:""`
		Show    WorkerShowCmd    `cmd:""`
		Drain   WorkerDrainCmd   `cmd:""`
		Undrain WorkerUndrainCmd `cmd:""`
	} `cmd:""`
}

func (c *cluster) try(ctx context.Context, out *bytes.Buffer, args ...string) error {
	c.t.Helper()
	parser, err := kong.New(&tree{}, kong.Exit(func(int) { c.t.Error("exit") }), kong.Writers(out, out))
	if err != nil {
		c.t.Fatal(err)
	}
	k, err := parser.Parse(args)
	if err != nil {
		return err
	}
	return k.Run(&Context{Ctx: ctx, Stdout: out, Stderr: out, Stdin: strings.NewReader(c.stdin)})
}

// run runs a command that must succeed.
func (c *cluster) run(args ...string) string {
	c.t.Helper()
	var out bytes.Buffer
	if err := c.try(c.t.Context(), &out, append(args, "--api", c.url, "--token-file", c.token)...); err != nil {
		c.t.Fatalf("%v: %v", args, err)
	}
	return out.String()
}

// fails runs a command that must not, and returns what it says.
func (c *cluster) fails(args ...string) string {
	c.t.Helper()
	var out bytes.Buffer
	err := c.try(c.t.Context(), &out, append(args, "--api", c.url, "--token-file", c.token)...)
	if err == nil {
		c.t.Fatalf("%v: no error; it printed %s", args, out.String())
	}
	return err.Error()
}

func parse[T any](t *testing.T, out string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return v
}

func contains(t *testing.T, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestStreamCommands(t *testing.T) {
	c := newCluster(t)
	out := c.run("stream", "create", "demo", "--profile", "480p", "--grace", "20s", "--name", "A name")
	key := strings.Fields(strings.Split(out, "\n")[1])[2]
	contains(t, out, "demo", "480p")
	created := parse[wire.StreamWithKey](t, c.run("stream", "create", "second", "-o", "json"))
	if created.Key == "" || created.Key == key || created.Profile != "720p" || created.GraceSeconds != 15 {
		t.Errorf("%+v", created)
	}
	contains(t, c.run("stream", "ls"), "ID", "demo", "A name", "second")
	if all := parse[[]wire.Stream](t, c.run("stream", "ls", "-o", "json")); len(all) != 2 {
		t.Errorf("%+v", all)
	}
	contains(t, c.run("stream", "get", "demo"), "480p", "20 s")
	if s := parse[wire.Stream](t, c.run("stream", "update", "demo", "--disabled", "--window", "2m", "-o", "json")); !s.Disabled || s.WindowSeconds != 120 || s.Name != "A name" {
		t.Errorf("%+v", s)
	}
	if s := parse[wire.Stream](t, c.run("stream", "update", "demo", "--no-disabled", "--if-version", "2", "-o", "json")); s.Disabled || s.Version != 3 {
		t.Errorf("%+v", s)
	}
	contains(t, c.fails("stream", "update", "demo", "--name", "x", "--if-version", "2"), "not at the version")
	rotated := parse[wire.StreamKey](t, c.run("stream", "rotate-key", "demo", "-o", "json"))
	if rotated.Key == key || rotated.Key == "" {
		t.Error("the key was not replaced")
	}
	contains(t, c.run("stream", "status", "demo"), "state", "offline")
	contains(t, c.run("stream", "events", "demo"), "stream.created", "stream.updated", "key.rotated")
	lines := strings.Split(strings.TrimSpace(c.run("stream", "events", "demo", "-o", "json")), "\n")
	if e := parse[wire.Event](t, lines[0]); len(lines) != 4 || e.Type != "stream.created" {
		t.Errorf("%d lines, first %+v", len(lines), e)
	}
	c.run("stream", "delete", "demo")
	contains(t, c.fails("stream", "get", "demo"), `no stream "demo"`)
	contains(t, c.fails("stream", "create", "second"), "already")
	contains(t, c.fails("stream", "create", "No Good"), "id", "a-z")
	contains(t, c.fails("stream", "create", "x", "--profile", "none"), "profile there is no profile")
}

func TestWatchTellsOfChangesUntilInterrupted(t *testing.T) {
	c := newCluster(t)
	c.run("stream", "create", "demo")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, done := &lockedBuffer{}, make(chan error, 1)
	cmd := StreamWatchCmd{Flags: Flags{API: c.url, TokenFile: c.token, Output: "table"}, ID: "demo", Interval: 100 * time.Millisecond}
	go func() { done <- cmd.Run(&Context{Ctx: ctx, Stdout: out}) }()
	wait := func(text string) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, text, func() error {
			if !strings.Contains(out.String(), text) {
				return &missing{text, out.String()}
			}
			return nil
		})
	}
	wait("state offline")
	c.run("stream", "update", "demo", "--disabled")
	wait("state disabled")
	wait("stream.updated")
	interrupt()
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if strings.Contains(out.String(), "stream.created") {
		t.Error("watch told of what was before")
	}
}

func TestProfileCommands(t *testing.T) {
	c := newCluster(t)
	contains(t, c.run("profile", "ls"), "720p", "yes")
	contains(t, c.run("profile", "get", "720p"), "1280x720", "aac")
	file := filepath.Join(t.TempDir(), "p.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`# two profiles in one file
name: small
video:
  - {name: low, width: 640, height: 360, bitrate: 800000, fps: 29.97}
audio:
  - {name: sound, bitrate: 96000}
---
name: radio
segment_seconds: 4
audio:
  - name: sound
    bitrate: 128000
`)
	contains(t, c.run("profile", "apply", "-f", file), "small created, version 1", "radio created")
	contains(t, c.run("profile", "apply", "-f", file), "small replaced", "radio replaced")

	asJSON := c.run("profile", "get", "small", "-o", "json")
	if p := parse[wire.Profile](t, asJSON); p.Video[0].Name != "low" || *p.Video[0].Fps != 29.97 {
		t.Errorf("%s", asJSON)
	}
	c.stdin = asJSON // what get prints, apply takes
	contains(t, c.run("profile", "apply", "-f", "-"), "small replaced")
	contains(t, c.fails("profile", "apply", "-f", "-"), "not at the version") // and only once

	for text, says := range map[string]string{
		"":                   "no profile in it",
		"video: []":          "no name",
		"name: x\nvidoe: []": "vidoe",
		"name: [":            "document 1",
		"name: x":            "no rendition",
		"name: 720p\naudio: [{name: a, bitrate: 96000}]":                         "built in",
		"name: x\naudio: [{name: a, bitrate: 96000, codec: \"aac:b=1\"}]":        "audio[0].codec",
		"name: x\nvideo: [{name: a, width: wide, height: 2, bitrate: 96000}]":    "width",
		"name: ../x\naudio: [{name: a, bitrate: 96000}]":                         "name",
		"name: x\naudio: [{name: a, bitrate: 96000}]\n---\nname: y\naudio: none": "document 2",
	} {
		write(text)
		contains(t, c.fails("profile", "apply", "-f", file), says)
	}
	contains(t, c.fails("profile", "apply", "-f", file+".not"), "no such file")
	c.run("profile", "delete", "small")
	contains(t, c.fails("profile", "get", "small"), `no profile "small"`)
	contains(t, c.fails("profile", "delete", "720p"), "built in")
}

func TestWorkerCommands(t *testing.T) {
	c := newCluster(t)
	contains(t, c.run("worker", "ls"), "WORKER")
	budget := int64(120_000_000)
	if err := c.store.PutReport(t.Context(), capacity.Report{
		Worker: "w1", Boot: "b", Host: "host", Ready: true, GPAC: "1.0.1", Time: time.Now(),
		Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Name: "CPU", Usable: true, Capacity: &budget}},
	}); err != nil {
		t.Fatal(err)
	}
	contains(t, c.run("worker", "ls"), "w1", "host", "ready", "cpu", "120.00")
	if all := parse[[]wire.Worker](t, c.run("worker", "ls", "-o", "json")); len(all) != 1 || *all[0].Devices[0].CapacityPxS != budget {
		t.Errorf("%+v", all)
	}
	contains(t, c.run("worker", "show", "w1"), "1.0.1", "120.00")
	contains(t, c.fails("worker", "show", "w2"), `no worker "w2"`)
	contains(t, c.fails("worker", "drain", "w2"), `no worker "w2"`)
	contains(t, c.run("worker", "drain", "w1"), "Worker w1 drains; it holds 0 streams.")
	contains(t, c.run("worker", "ls"), "draining: an operator asked for it")
	contains(t, c.run("worker", "undrain", "w1"), "Worker w1 is asked to drain no longer")
	if all := parse[[]wire.Worker](t, c.run("worker", "ls", "-o", "json")); all[0].Drain {
		t.Errorf("%+v", all)
	}
}

func TestWhatIsWrongWithTheConnection(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for name, tc := range map[string]struct{ api, token, says string }{
		"no token":    {c.url, filepath.Join(dir, "none"), "there is no admin token at " + filepath.Join(dir, "none")},
		"wrong token": {c.url, bad, "does not accept the token in " + bad},
		"no api":      {"http://127.0.0.1:1", c.token, "http://127.0.0.1:1 can't be reached"},
		"not the api": {"http://%", c.token, "http://%"},
		"no scheme":   {"127.0.0.1:8080", c.token, `"127.0.0.1:8080" is not a URL such as`},
		"no URL":      {"foo", c.token, `"foo" is not a URL such as`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.try(t.Context(), &out, "stream", "ls", "--api", tc.api, "--token-file", tc.token)
			if err == nil {
				t.Fatal("no error")
			}
			contains(t, err.Error(), tc.says)
		})
	}
	t.Run("token and api from the environment", func(t *testing.T) {
		t.Setenv("DIONYSIA_DATA_DIR", filepath.Dir(c.token))
		t.Setenv("DIONYSIA_API", c.url)
		if err := c.try(t.Context(), &out, "stream", "ls"); err != nil {
			t.Error(err)
		}
	})
}

func TestControlCharactersDoNotReachTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := &session{Context: &Context{Stdout: &out}}
	if err := s.print(nil, func(t *table) { t.row("a\x1b[2Jb", "c\td\n") }); err != nil {
		t.Fatal(err)
	}
	if err := s.line(nil, "e\rf"); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.ContainsAny(got, "\x1b\r\t") || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
}

type missing struct{ want, have string }

func (m *missing) Error() string { return m.want + " is not in: " + m.have }
