package ingest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// TestGarbage shows that nonsense on the ports, or nothing, harms nobody who
// is live, and is closed.
func TestGarbage(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(p *MediaMTXParams) { p.ReadTimeout = 4 * time.Second })
	r.push(r.rtmp("demo", "sesame"))
	a := r.live("demo")
	var conns []net.Conn
	for _, port := range []int{r.mtx.Ports.RTMP, r.mtx.Ports.RTSP, r.mtx.Ports.WebRTC} {
		for _, b := range [][]byte{nil, []byte("GET / HTTP/1.1\r\n"), make([]byte, 100_000), []byte("\x03\xff\xff\xff")} {
			c, err := net.Dial("tcp", r.mtx.Addr(port))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write(b)             // it may hang up at once
			if port != r.mtx.Ports.RTSP { // mediamtx v1.15 keeps an RTSP connection without a whole request open
				conns = append(conns, c)
			}
		}
	}
	udp, err := net.Dial("udp", r.mtx.Addr(r.mtx.Ports.SRT))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for n := range 64 {
		_, _ = udp.Write(make([]byte, 16+n)) // nobody needs to take it
	}
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d to %v was left open", i, c.RemoteAddr())
		}
	}
	testkit.Eventually(t, wait, "bytes to go on", func() error {
		if p, ok := r.api.path("demo"); !ok || p.Session != a.Session || p.BytesReceived <= a.BytesReceived+50_000 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

// TestNeverSends shows that a publisher that was let in and sends nothing does
// not hold its stream.
func TestNeverSends(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, err := net.Dial("tcp", r.mtx.Addr(r.mtx.Ports.RTSP))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sdp := "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
	fmt.Fprintf(c, "ANNOUNCE rtsp://%s/live/demo?key=sesame RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		r.mtx.Addr(r.mtx.Ports.RTSP), len(sdp), sdp)
	b := make([]byte, 512)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	n, err := c.Read(b)
	if err != nil || !strings.Contains(string(b[:n]), "200 OK") {
		t.Fatalf("%v %s", err, b[:n])
	}
	rtsp := fmt.Sprintf("rtsp://%s/live/demo?key=sesame", r.mtx.Addr(r.mtx.Ports.RTSP))
	r.refused(r.push(rtsp), reasonBusy) // it may be just about to send
	testkit.Eventually(t, wait, "another publisher to be let in", func() error {
		second := r.push(rtsp)
		for {
			select {
			case <-second.Done():
				return errors.New("refused")
			case <-time.After(20 * time.Millisecond):
			}
			if p, ok := r.api.path("demo"); ok && p.Ready {
				return nil
			}
		}
	})
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the one that never sent was left connected")
	}
}
