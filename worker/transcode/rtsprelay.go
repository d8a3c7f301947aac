package transcode

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"
)

// relay passes one RTSP connection over TCP on to a server and leaves out the
// server's RTCP. libavformat times a stream anew by each sender report, and
// mediamtx's carry the packets' arrival times: every 10 s the pictures' times
// would step by what the network jittered. Without reports the RTP timestamps
// stand, which are the publisher's. (Read in libavformat's rtpdec.c,
// finalize_packet; steps of 16 to 207 ms were measured.)
type relay struct {
	ln     net.Listener
	target string

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	wg     sync.WaitGroup
}

// newRelay listens on a port of the loopback for readers of target, host:port.
// Whoever connects needs a read token as at the server itself.
func newRelay(target string) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("relaying RTSP: %w", err)
	}
	r := &relay{ln: ln, target: target}
	r.wg.Go(r.accept)
	return r, nil
}

// addr is where the relay listens.
func (r *relay) addr() string { return r.ln.Addr().String() }

// relayed puts a relay before an RTSP source; another is returned as it is.
func relayed(base string) (url string, stop func(), err error) {
	rest, ok := strings.CutPrefix(base, "rtsp://")
	if !ok {
		return base, func() {}, nil
	}
	target, path, _ := strings.Cut(rest, "/")
	r, err := newRelay(target)
	if err != nil {
		return "", nil, err
	}
	return "rtsp://" + r.addr() + "/" + path, r.close, nil
}

// close ends the relay and its connections.
func (r *relay) close() {
	_ = r.ln.Close()
	r.mu.Lock()
	r.closed = true
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// hold keeps a connection to be closed with the relay; false when that is over.
func (r *relay) hold(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return false
	}
	r.conns = append(r.conns, c)
	return true
}

func (r *relay) accept() {
	for {
		down, err := r.ln.Accept()
		if err != nil {
			return
		}
		if !r.hold(down) {
			return
		}
		up, err := net.DialTimeout("tcp", r.target, dialTimeout)
		if err != nil || !r.hold(up) {
			_ = down.Close()
			continue
		}
		r.wg.Go(func() {
			_, _ = io.Copy(up, down)
			_ = up.Close()
		})
		r.wg.Go(func() {
			_ = withoutRTCP(down, up)
			_ = down.Close()
		})
	}
}

// maxRTSPBody bounds a response's body: an SDP has a few KiB.
const maxRTSPBody = 1 << 20

// relayWrite bounds a write to a reader that takes nothing.
const relayWrite = 20 * time.Second

// withoutRTCP copies an RTSP server's side of a connection (RFC 2326): its
// responses whole, its interleaved frames, '$' channel length data, only those
// of the even channels. RTCP is on the odd ones, section 10.12.
func withoutRTCP(down net.Conn, up io.Reader) error {
	in := bufio.NewReaderSize(up, 64<<10)
	out := bufio.NewWriterSize(down, 64<<10)
	for {
		first, err := in.Peek(1)
		if err != nil {
			return err
		}
		if first[0] == '$' {
			err = copyFrame(out, in)
		} else {
			err = copyMessage(out, in)
		}
		if err == nil && in.Buffered() == 0 {
			if err = down.SetWriteDeadline(time.Now().Add(relayWrite)); err == nil {
				err = out.Flush()
			}
		}
		if err != nil {
			return err
		}
	}
}

func copyFrame(out io.Writer, in *bufio.Reader) error {
	head, err := in.Peek(4)
	if err != nil {
		return err
	}
	n := 4 + int64(head[2])<<8 + int64(head[3])
	if head[1]%2 == 1 {
		out = io.Discard
	}
	_, err = io.CopyN(out, in, n)
	return err
}

func copyMessage(out io.Writer, in *bufio.Reader) error {
	var body int64
	for lines := 0; ; lines++ {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if lines > 200 {
			return errors.New("an RTSP header of over 200 lines")
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		if k, v, ok := strings.Cut(text, ":"); ok && textproto.CanonicalMIMEHeaderKey(k) == "Content-Length" {
			if body, err = strconv.ParseInt(strings.TrimSpace(v), 10, 64); err != nil || body < 0 || body > maxRTSPBody {
				return fmt.Errorf("an RTSP body of %q bytes", v)
			}
		}
	}
	_, err := io.CopyN(out, in, body)
	return err
}
