package scaler

import (
	"strings"
	"sync"
	"testing"
)

// logs keeps what was logged while others read it.
type logs struct {
	t  *testing.T
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logs) show() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t.Log(l.b.String())
}
