package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// MediaMTXPorts are the loopback ports of one mediamtx.
type MediaMTXPorts struct {
	RTMP, RTSP, WebRTC, API int // TCP
	SRT, ICE                int // UDP
}

// MediaMTX is a real mediamtx on the loopback.
type MediaMTX struct {
	Ports MediaMTXPorts

	t    testing.TB
	conf string
	env  []string
	proc *Process
}

// StartMediaMTX starts mediamtx with the configuration that config makes for
// the ports, and env added to its environment. It lives until the test ends.
func StartMediaMTX(t testing.TB, config func(MediaMTXPorts) []byte, env ...string) *MediaMTX {
	t.Helper()
	m := &MediaMTX{t: t, conf: filepath.Join(t.TempDir(), "mediamtx.yml"), env: env}
	p := FreePorts(t, 6)
	m.Ports = MediaMTXPorts{RTMP: p[0], RTSP: p[1], WebRTC: p[2], API: p[3], SRT: p[4], ICE: p[5]}
	if err := os.WriteFile(m.conf, config(m.Ports), 0o600); err != nil {
		t.Fatalf("writing the configuration of mediamtx: %v", err)
	}
	if err := m.start(); err != nil {
		t.Fatalf("starting mediamtx: %v", err)
	}
	return m
}

// Addr returns the loopback address of a port.
func (m *MediaMTX) Addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// APIURL is the base URL of the control API.
func (m *MediaMTX) APIURL() string { return "http://" + m.Addr(m.Ports.API) }

// Output returns what mediamtx and its hooks have printed since it started.
func (m *MediaMTX) Output() string { return m.proc.Output() }

// PID returns mediamtx's process id.
func (m *MediaMTX) PID() int { return m.proc.PID() }

// Kill kills mediamtx and its hooks with SIGKILL and waits.
func (m *MediaMTX) Kill() { m.proc.Kill() }

// Restart starts mediamtx again on the same ports, after Kill.
func (m *MediaMTX) Restart() {
	m.t.Helper()
	if err := m.start(); err != nil {
		m.t.Fatalf("restarting mediamtx: %v", err)
	}
}

func (m *MediaMTX) start() error {
	m.t.Helper()
	cmd := exec.Command(Part(m.t, "DIONYSIA_MEDIAMTX", "mediamtx"), m.conf)
	cmd.Env = append(os.Environ(), m.env...)
	cmd.Dir = filepath.Dir(m.conf)
	m.proc = StartProcess(m.t, "mediamtx", cmd)
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	return WaitFor(ctx, 30*time.Second, func() error {
		select {
		case <-m.proc.Done():
			cancel()
			return fmt.Errorf("it ended: %v\n%s", m.proc.Err(), m.proc.Output())
		default:
			// The API's listener is the last one that it opens.
			return Dialable(m.Addr(m.Ports.API))()
		}
	})
}
