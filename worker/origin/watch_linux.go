package origin

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher reports files that were closed after writing, or moved into place, in
// the directories it was given. An event only makes a listing quicker: the runs
// also poll, so a lost one does no harm.
type watcher struct {
	fd  int
	f   *os.File
	mu  sync.Mutex
	fns map[int32]func(name string)
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening inotify: %w", err)
	}
	// Being non-blocking, the file goes to the runtime's poller, and Close ends a Read.
	return &watcher{fd: fd, f: os.NewFile(uintptr(fd), "inotify"), fns: map[int32]func(string){}}, nil
}

// add calls fn, from watcher's goroutine, with the name of each file that is
// complete in dir, until the returned function is called.
func (w *watcher) add(dir string, fn func(name string)) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wd, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	w.fns[int32(wd)] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, ok := w.fns[int32(wd)]; ok {
			delete(w.fns, int32(wd))
			// Fails when the directory is gone, which removed the watch.
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
		}
	}, nil
}

// run delivers events until close.
func (w *watcher) run() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			wd := int32(binary.NativeEndian.Uint32(b))
			mask := binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				break
			}
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:size], "\x00"))
			w.mu.Lock()
			fn := w.fns[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(w.fns, wd)
			}
			w.mu.Unlock()
			if fn != nil && name != "" {
				fn(name)
			}
			b = b[size:]
		}
	}
}

func (w *watcher) close() { w.f.Close() }
