package router

import (
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// errNoMemory says that the cache's limit is taken by segments that are
// filling or being read.
var errNoMemory = errors.New("segment memory exhausted")

// maxNegative bounds how many 404s are remembered.
const maxNegative = 4096

// cache holds segments in memory, least recently used out first. Its limit
// covers all that it answers for:
//
//	filling ──filled──▶ kept ──evicted while read──▶ lingering ──last reader gone──▶ (freed)
//	   │ failed            └──evicted──▶ (freed)
//	   ├──▶ (freed)
//	   └ given up: nobody reads it ──▶ (freed)
//
// A filling object can't be evicted; when nothing kept is left to evict, a new
// fill is refused with errNoMemory.
type cache struct {
	limit int64

	mu       sync.Mutex
	used     int64 // bytes of filling, kept and lingering objects
	filling  map[string]*object
	kept     *simplelru.LRU[string, *object]
	negative *simplelru.LRU[string, missing]
}

// missing is a remembered 404 (or its like).
type missing struct {
	until time.Time
	err   error
}

func newCache(limit int64) *cache {
	c := &cache{limit: limit, filling: map[string]*object{}}
	// The only error is a size below 1.
	c.kept, _ = simplelru.NewLRU(math.MaxInt32, func(_ string, o *object) {
		o.evicted = true
		if o.readers == 0 {
			c.used -= o.reserved
			o.reserved = 0
		}
	})
	c.negative, _ = simplelru.NewLRU[string, missing](maxNegative, nil)
	return c
}

// hit returns the kept object of path for reading, or nil.
func (c *cache) hit(path string) *object {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.kept.Get(path)
	if !ok {
		return nil
	}
	o.readers++
	return o
}

// open returns the object of path for reading; started is true when the caller
// must fill it. It returns a remembered error when the path is known to be
// missing.
func (c *cache) open(path string, st *streamState, now time.Time) (o *object, started bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.kept.Get(path); ok {
		o.readers++
		return o, false, nil
	}
	if o := c.filling[path]; o != nil {
		o.readers++
		return o, false, nil
	}
	if m, ok := c.negative.Get(path); ok && now.Before(m.until) {
		return nil, false, m.err
	}
	o = newObject(path, st)
	o.readers = 1
	c.filling[path] = o
	return o, true, nil
}

// join returns the object of path for reading, kept or filling, or nil.
func (c *cache) join(path string) *object {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.kept.Get(path)
	if !ok {
		o = c.filling[path]
	}
	if o != nil {
		o.readers++
	}
	return o
}

// fills reports whether path is filling.
func (c *cache) fills(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.filling[path] != nil
}

// holds reports whether path is kept, without counting as a use.
func (c *cache) holds(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept.Contains(path)
}

// appeared forgets that path was missing.
func (c *cache) appeared(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.negative.Remove(path)
}

// reserve makes room for n more bytes of o, which is filling.
func (c *cache) reserve(o *object, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.used+n > c.limit {
		if _, _, ok := c.kept.RemoveOldest(); !ok {
			return errNoMemory
		}
	}
	c.used += n
	o.reserved += n
	return nil
}

// begins notes that o is being filled since now; cancel ends that.
func (c *cache) begins(o *object, p *place, now time.Time, cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.place, o.since, o.cancel = p, now, cancel
}

// giveUp ends the fills that began before limit and that nobody reads. Those that
// are read are viewers' from then on: they leave their lanes.
func (c *cache) giveUp(limit time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, o := range c.filling {
		switch {
		case o.cancel == nil || o.since.After(limit):
		case o.readers > 0:
			o.place.leave(false)
		default:
			delete(c.filling, path) // who asks for it now begins anew
			o.evicted = true
			o.cancel()
		}
	}
}

// ends takes o from those that fill; c.mu is held.
func (c *cache) ends(o *object) {
	if c.filling[o.path] == o {
		delete(c.filling, o.path)
	}
}

// filled moves o from filling to kept.
func (c *cache) filled(o *object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends(o)
	if o.evicted { // its stream was purged meanwhile, or it was given up
		c.freeIfUnread(o)
		return
	}
	c.negative.Remove(o.path)
	c.kept.Add(o.path, o)
}

// failed drops o, which could not be filled, and remembers err until until
// (the zero time: not at all).
func (c *cache) failed(o *object, err error, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends(o)
	o.evicted = true
	c.freeIfUnread(o)
	if !until.IsZero() {
		c.negative.Add(o.path, missing{until: until, err: err})
	}
}

// release ends one reading of o.
func (c *cache) release(o *object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.readers--
	if o.evicted && c.filling[o.path] != o {
		c.freeIfUnread(o)
	}
}

func (c *cache) freeIfUnread(o *object) {
	if o.readers == 0 {
		c.used -= o.reserved
		o.reserved = 0
	}
}

// purge drops all objects of a stream: it was deleted.
func (c *cache) purge(streamID string) {
	prefix := livePrefix + streamID + "/"
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range c.kept.Keys() {
		if strings.HasPrefix(path, prefix) {
			c.kept.Remove(path)
		}
	}
	for path, o := range c.filling {
		if strings.HasPrefix(path, prefix) {
			o.evicted = true
		}
	}
}

// size returns the bytes in use and the number of kept objects.
func (c *cache) size() (bytes int64, objects int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.kept.Len()
}
