package router

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// freshGrace is how long a drain waits for the first request on a connection.
const freshGrace = 500 * time.Millisecond

// freshConns are the connections on which no request has come yet, such as
// those that browsers open ahead. http.Server.Shutdown would wait 5 s for each.
type freshConns struct {
	conns sync.Map // net.Conn → struct{}
}

// track is an http.Server's ConnState.
func (f *freshConns) track(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		f.conns.Store(c, struct{}{})
	case http.StateIdle: // no longer fresh since its first request
	default:
		f.conns.Delete(c)
	}
}

func (f *freshConns) closeAll() {
	f.conns.Range(func(c, _ any) bool {
		_ = c.(net.Conn).Close()
		return true
	})
}
