//go:build !linux

package origin

import "errors"

// watcher is only there on Linux; elsewhere the runs poll.
type watcher struct{}

func newWatcher() (*watcher, error) { return nil, errors.New("no inotify on this system") }

func (w *watcher) add(string, func(string)) (func(), error) {
	return nil, errors.New("no inotify on this system")
}

func (w *watcher) run() {}

func (w *watcher) close() {}
