package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// benchT gives the test harness what it needs of a testing.TB outside a test.
type benchT struct {
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

func newT(name string) *benchT {
	t := &benchT{name: name, begin: time.Now()}
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

func (t *benchT) Helper()                  {}
func (t *benchT) Name() string             { return t.name }
func (t *benchT) Context() context.Context { return t.ctx }

func (t *benchT) Log(args ...any) { t.Logf("%s", fmt.Sprintln(args...)) }
func (t *benchT) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (t *benchT) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

func (t *benchT) Fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *benchT) Error(args ...any) { t.Fail(); t.Log(args...) }
func (t *benchT) Errorf(format string, args ...any) {
	t.Fail()
	t.Logf(format, args...)
}

func (t *benchT) Fatal(args ...any) { t.Fatalf("%s", fmt.Sprintln(args...)) }
func (t *benchT) Fatalf(format string, args ...any) {
	t.Fail()
	panic(fatal{fmt.Sprintf(format, args...)})
}
func (t *benchT) FailNow() { t.Fatalf("failed") }

func (t *benchT) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *benchT) TempDir() string {
	dir, err := os.MkdirTemp("", "dionysia-bench-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// close runs the cleanups, last in, first out.
func (t *benchT) close() {
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

// within runs f with a T of its own, whose cleanups run before it returns.
func (t *benchT) within(f func(t *benchT) error) error {
	sub := newT(t.name)
	sub.begin = t.begin
	defer func() {
		if sub.Failed() {
			t.Fail()
		}
		sub.close()
	}()
	return f(sub)
}
