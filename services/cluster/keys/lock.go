package keys

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrBusy says that another run was at the folder all the while.
var ErrBusy = errors.New("another init is at work in this folder")

// lockLimit is how long a run waits for another; one takes well under a second.
const lockLimit = 15 * time.Second

// lockEvery is how often it is tried.
const lockEvery = 20 * time.Millisecond

// lock locks the folder for this run, until unlock or the end of the process. The
// lock is the folder's own: no file is left.
func lock(dir string, limit time.Duration) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(limit); ; time.Sleep(lockEvery) {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = d.Close() }, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = d.Close()
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		case time.Now().After(end):
			_ = d.Close()
			return nil, fmt.Errorf("%s: %w: waited %v for it; nothing was written, run this again when it has ended", dir, ErrBusy, limit)
		}
	}
}
