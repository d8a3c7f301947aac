package transcode

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestRelayLeavesOutRTCPOnly(t *testing.T) {
	frame := func(channel byte, body string) string {
		return string([]byte{'$', channel, byte(len(body) >> 8), byte(len(body))}) + body
	}
	describe := "RTSP/1.0 200 OK\r\nCSeq: 1\r\ncontent-length: 7\r\n\r\nv=0\r\n$$"
	play := "RTSP/1.0 200 OK\r\nCSeq: 2\r\n\r\n"
	video, audio := frame(0, strings.Repeat("v", 3000)), frame(2, "a\r\n\r\n$")
	sent := describe + play + video + frame(1, "video report") + audio + frame(3, "audio report") + play + video
	want := describe + play + video + audio + play + video

	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	asked := make(chan string, 1)
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		b := make([]byte, 8)
		_, _ = io.ReadFull(c, b)
		asked <- string(b)
		for part := range bytes.Lines([]byte(sent)) { // in pieces that cut frames
			_, _ = c.Write(part)
		}
		_ = c.Close()
	}()
	r, err := newRelay(server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("DESCRIBE")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if q := <-asked; q != "DESCRIBE" {
		t.Errorf("the server was asked %q", q)
	}
	if string(got) != want {
		t.Errorf("got %d bytes, want %d:\n%q", len(got), len(want), got)
	}
}

func TestRelayClosesWhatItHolds(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	r, err := newRelay(server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	up, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = up.Close() }()
	r.close()
	for what, conn := range map[string]net.Conn{"reader": c, "server": up} {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("the %s's connection is open", what)
		}
	}
}
