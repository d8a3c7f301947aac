//go:build linux

// Command forward listens on this network namespace's loopback and passes each
// connection on to an address in another one: it lets a browser here see what
// `make cluster` runs in namespaces of its own.
//
//	forward 127.0.0.1:20081=/run/netns/host,10.90.0.1:80,10.90.0.2:80 …
//
// The targets are tried in their order. It says "ready" when it listens.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("nothing to forward; give LISTEN=NAMESPACE,TARGET…")
	}
	failed := make(chan error)
	for _, arg := range args {
		listen, rest, ok := strings.Cut(arg, "=")
		netns, targets, ok2 := strings.Cut(rest, ",")
		if !ok || !ok2 || targets == "" {
			return fmt.Errorf("%q: need LISTEN=NAMESPACE,TARGET…", arg)
		}
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		go func() { failed <- serve(l, netns, strings.Split(targets, ",")) }()
	}
	fmt.Println("ready")
	return <-failed
}

func serve(l net.Listener, netns string, targets []string) error {
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = in.Close() }()
			out, err := dialIn(netns, targets)
			if err != nil {
				fmt.Fprintln(os.Stderr, "forward:", err)
				return
			}
			defer func() { _ = out.Close() }()
			join(in.(*net.TCPConn), out.(*net.TCPConn))
		}()
	}
}

// join copies both ways; each side's end of sending is passed on.
func join(a, b *net.TCPConn) {
	var both sync.WaitGroup
	for _, way := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].CloseWrite()
		})
	}
	both.Wait()
}

// dialIn connects to the first target, an IP and port, that answers inside the namespace.
func dialIn(netns string, targets []string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and its namespace with it. A socket
		// keeps the namespace that it was made in.
		runtime.LockOSThread()
		conn, err := func() (net.Conn, error) {
			f, err := os.Open(netns)
			if err != nil {
				return nil, err
			}
			defer func() { _ = f.Close() }()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("entering %s: %w", netns, err)
			}
			var failed []error
			for _, target := range targets {
				conn, err := net.DialTimeout("tcp", target, 2*time.Second)
				if err == nil {
					return conn, nil
				}
				failed = append(failed, err)
			}
			return nil, errors.Join(failed...)
		}()
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
