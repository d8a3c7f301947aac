package router

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// object is one segment, filling or filled. Readers follow the filler: what
// has arrived never changes, so it is read without copying.
type object struct {
	path string
	st   *streamState

	// These are the cache's, under its mutex.
	readers  int
	evicted  bool
	reserved int64
	place    *place // in a lane, of the fill
	since    time.Time
	cancel   func() // ends the fill; nil before it has begun

	// whole is set once all bytes are there: the fast path needs no lock.
	whole atomic.Pointer[wholeObject]

	mu      sync.Mutex
	head    *objectHead // nil until the origin has answered 200
	data    []byte      // what has arrived
	err     error       // why no more will
	changed chan struct{}
}

// objectHead is what is known once the origin has answered.
type objectHead struct {
	size   int64 // -1: unknown until filled
	header segmentHeader
}

// wholeObject is a filled object.
type wholeObject struct {
	data   []byte
	header segmentHeader
}

// segmentHeader holds response header values, made once per object so that
// serving it allocates none.
type segmentHeader struct {
	contentType, contentLength, etag []string
}

func newObject(path string, st *streamState) *object {
	return &object{path: path, st: st, changed: make(chan struct{})}
}

// wake tells all waiting readers that something changed; o.mu is held.
func (o *object) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// begin tells the readers that bytes will come: size of them, or -1.
func (o *object) begin(size int64, contentType string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.head = &objectHead{size: size, header: segmentHeader{
		contentType: []string{contentType},
		// A URL names the same bytes for ever, so the path identifies them.
		etag: []string{etagOf(o.path)},
	}}
	if size >= 0 {
		o.head.header.contentLength = []string{strconv.FormatInt(size, 10)}
		o.data = make([]byte, 0, size)
	}
	o.wake()
}

// space returns where the filler may write next, at most n bytes. Only the
// filler calls it; what readers hold stays valid when data moves.
func (o *object) space(n int) []byte {
	if free := cap(o.data) - len(o.data); free < n {
		if o.head.size >= 0 {
			n = free
		} else {
			grown := make([]byte, len(o.data), max(2*cap(o.data), len(o.data)+n))
			copy(grown, o.data)
			o.mu.Lock()
			o.data = grown
			o.mu.Unlock()
		}
	}
	return o.data[len(o.data) : len(o.data)+n]
}

// advance publishes n bytes written to space.
func (o *object) advance(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = o.data[:len(o.data)+n]
	o.wake()
}

// finish ends the filling, well (nil) or not.
func (o *object) finish(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.head.size = int64(len(o.data))
		o.head.header.contentLength = []string{strconv.Itoa(len(o.data))}
		o.whole.Store(&wholeObject{data: o.data, header: o.head.header})
	}
	o.err = err
	o.wake()
}

// waitHead waits until the origin has answered.
func (o *object) waitHead(ctx context.Context) (objectHead, error) {
	for {
		o.mu.Lock()
		head, err, changed := o.head, o.err, o.changed
		if head != nil {
			h := *head
			o.mu.Unlock()
			return h, nil
		}
		o.mu.Unlock()
		if err != nil {
			return objectHead{}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return objectHead{}, ctx.Err()
		}
	}
}

// waitData waits for bytes from off on and returns those that are there; end is
// true when there is nothing after them.
func (o *object) waitData(ctx context.Context, off int64) (data []byte, end bool, err error) {
	for {
		o.mu.Lock()
		data, err, changed := o.data, o.err, o.changed
		// Under the lock: seen whole a moment later, the data before would be taken
		// for all of it.
		whole := o.whole.Load() != nil
		o.mu.Unlock()
		if int64(len(data)) > off || whole {
			return data[min(off, int64(len(data))):], whole, nil
		}
		if err != nil {
			return nil, true, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, true, ctx.Err()
		}
	}
}
