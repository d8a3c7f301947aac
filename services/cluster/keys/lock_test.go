package keys

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestRunsAtOnceLoseNoHost has many runs each add a host of its own to a new folder.
func TestRunsAtOnceLoseNoHost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	const n = 12
	server, err := ParseHost("s1=10.0.0.1,server")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			h, err := ParseHost(fmt.Sprintf("w%d=10.0.1.%d,worker", i, i+1))
			if err != nil {
				t.Error(err)
				return
			}
			o := Options{Hosts: []Host{server, h}, Now: time.Now()}
			_, err = Init(dir, o)
			for errors.Is(err, ErrBusy) { // on a busy machine the others take long; who reads this runs it again
				_, err = Init(dir, o)
			}
			if err != nil {
				t.Errorf("w%d: %v", i, err)
			}
		})
	}
	all.Wait()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Hosts) != n+1 {
		t.Errorf("%d hosts: %v", len(f.Hosts), f.Hosts)
	}
}

func TestARunWaitsNotForever(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir, 2*lockEvery); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	again, err := lock(dir, 0)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again()
}
