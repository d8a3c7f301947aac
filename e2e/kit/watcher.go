package kit

import (
	"fmt"
	"sync"
	"time"
)

// watcher calls a function again and again in a goroutine of its own, and keeps
// the problems that it finds.
type watcher struct {
	stop chan struct{}
	done chan struct{}

	mu       sync.Mutex
	problems []string
	said     map[string]bool // each problem is kept once
}

func newWatcher() *watcher {
	return &watcher{stop: make(chan struct{}), done: make(chan struct{}), said: map[string]bool{}}
}

func watchEvery(d time.Duration, f func()) *watcher {
	w := newWatcher()
	w.run(d, f)
	return w
}

func (w *watcher) run(d time.Duration, f func()) {
	go func() {
		defer close(w.done)
		for {
			f()
			select {
			case <-w.stop:
				return
			case <-time.After(d):
			}
		}
	}()
}

// Close stops watching.
func (w *watcher) Close() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	<-w.done
}

func (w *watcher) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if w.said[text] {
		return
	}
	w.said[text] = true
	w.problems = append(w.problems, time.Now().Format("15:04:05.000 ")+text)
}

// Problems returns what was found wrong so far.
func (w *watcher) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.problems...)
}

// ExpectClean fails t for each problem, the first 20 of them.
func (w *watcher) ExpectClean(t T) {
	t.Helper()
	expectNone(t, w.Problems())
}

func expectNone(t T, problems []string) {
	t.Helper()
	for i, s := range problems {
		if i == 20 {
			t.Errorf("… and %d more", len(problems)-i)
			return
		}
		t.Errorf("%s", s)
	}
}
