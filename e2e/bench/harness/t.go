// Package harness runs measurements outside a test: it stands in for the
// testing.TB that the parts are started with, and prints the figures.
package harness

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// T gives the test harness what it needs of a testing.TB outside a test.
type T struct {
	testing.TB // nil: for the methods that nobody here calls

	name string
	ctx  context.Context
	end  context.CancelFunc

	mu       sync.Mutex
	failed   bool
	cleanups []func()
	begin    time.Time
}

// fatal is what Fatalf panics with.
type fatal struct{ msg string }

// Error returns the message.
func (f fatal) Error() string { return f.msg }

// NewT makes a T; its log lines count seconds from now on.
func NewT(name string) *T {
	t := &T{name: name, begin: time.Now()}
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

func (t *T) Helper()                  {}
func (t *T) Name() string             { return t.name }
func (t *T) Context() context.Context { return t.ctx }

func (t *T) Log(args ...any) { t.Logf("%s", fmt.Sprintln(args...)) }
func (t *T) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (t *T) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *T) Fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *T) Error(args ...any) { t.Fail(); t.Log(args...) }
func (t *T) Errorf(format string, args ...any) {
	t.Fail()
	t.Logf(format, args...)
}

func (t *T) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprintln(args...)) }
func (t *T) Fatalf(format string, args ...any) {
	t.Fail()
	panic(fatal{fmt.Sprintf(format, args...)})
}
func (t *T) FailNow() { t.Fatalf("failed") }

func (t *T) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *T) TempDir() string {
	dir, err := os.MkdirTemp("", "dionysia-bench-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Close runs the cleanups, last in, first out.
func (t *T) Close() {
	t.end()
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		f := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		func() {
			defer func() {
				if f, ok := recover().(fatal); ok {
					t.Logf("%s", f.msg)
				}
			}()
			f()
		}()
	}
}

// Within runs f with a T of its own, whose cleanups run before it returns.
func (t *T) Within(f func(t *T) error) error {
	sub := NewT(t.name)
	sub.begin = t.begin
	defer func() {
		if sub.Failed() {
			t.Fail()
		}
		sub.Close()
	}()
	return f(sub)
}
