package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever the order of fills, reads, failures and purges: the memory answered
// for is what filling, kept and read objects take, and never over the limit.
func TestCacheLimitProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		c := newCache(limit)
		filling := map[*object]struct{}{}
		var reading []*object
		now := time.Unix(1000, 0)
		pick := func() *object {
			if len(reading) == 0 {
				t.Skip()
			}
			return reading[rapid.IntRange(0, len(reading)-1).Draw(t, "reader")]
		}
		drop := func(o *object) {
			for i, r := range reading {
				if r == o {
					reading = append(reading[:i], reading[i+1:]...)
					return
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				path := fmt.Sprintf("/live/s%d/seg/e1r1/a/%d.m4s", rapid.IntRange(0, 1).Draw(t, "stream"), rapid.IntRange(1, 6).Draw(t, "n"))
				o, started, err := c.open(path, nil, now)
				if err != nil {
					return
				}
				reading = append(reading, o)
				if started {
					filling[o] = struct{}{}
				}
			},
			"grow": func(t *rapid.T) {
				for o := range filling {
					before := o.reserved
					n := int64(rapid.IntRange(1, 60).Draw(t, "bytes"))
					if err := c.reserve(o, n); err != nil && o.reserved != before {
						t.Fatal("a refused reservation took memory")
					}
					return
				}
				t.Skip()
			},
			"filled": func(t *rapid.T) {
				for o := range filling {
					delete(filling, o)
					c.filled(o)
					return
				}
				t.Skip()
			},
			"failed": func(t *rapid.T) {
				for o := range filling {
					delete(filling, o)
					c.failed(o, errGone, now.Add(time.Second))
					return
				}
				t.Skip()
			},
			"release": func(t *rapid.T) {
				o := pick()
				drop(o)
				c.release(o)
			},
			"later": func(*rapid.T) { now = now.Add(2 * time.Second) },
			"purge": func(*rapid.T) { c.purge("s1") },
			"": func(t *rapid.T) {
				alive := map[*object]struct{}{}
				for o := range filling {
					alive[o] = struct{}{}
				}
				for _, o := range reading {
					alive[o] = struct{}{}
				}
				for _, path := range c.kept.Keys() {
					o, _ := c.kept.Peek(path)
					alive[o] = struct{}{}
				}
				var sum int64
				for o := range alive {
					sum += o.reserved
				}
				if used, _ := c.size(); used != sum || used > limit {
					t.Fatalf("answers for %d bytes, objects take %d, limit %d", used, sum, limit)
				}
			},
		})
	})
}

// A range is answered as net/http's own file server does.
func TestByteRangeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(strings.Repeat("0123456789", rapid.IntRange(0, 3).Draw(t, "tens")))
		num := rapid.SampledFrom([]string{"", "0", "1", "5", "9", "10", "25", "99"})
		spec := "bytes=" + num.Draw(t, "from") + "-" + num.Draw(t, "to")
		if len(data) == 0 || spec == "bytes=-" || spec == "bytes=-0" {
			return // net/http differs: the table of the router's answers has these
		}
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("Range", spec)
		want := httptest.NewRecorder()
		http.ServeContent(want, req, "x.bin", time.Time{}, bytes.NewReader(data))
		off, n, code := byteRange(req, `"x"`, int64(len(data)))
		if code == http.StatusOK && want.Code == http.StatusRequestedRangeNotSatisfiable {
			return // a malformed one: ignored here, refused there
		}
		if code != want.Code {
			t.Fatalf("%s of %d: %d, want %d", spec, len(data), code, want.Code)
		}
		if code == http.StatusPartialContent && !bytes.Equal(data[off:off+n], want.Body.Bytes()) {
			t.Fatalf("%s of %d: %q, want %q", spec, len(data), data[off:off+n], want.Body)
		}
	})
}

// Readers that follow a filler see exactly its bytes, of a known length or not.
func TestObjectProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(t, "body")
		size := int64(len(body))
		if rapid.Bool().Draw(t, "length unknown") {
			size = -1
		}
		broken := rapid.Bool().Draw(t, "broken")
		steps := rapid.SliceOfN(rapid.IntRange(1, 300), 1, 10).Draw(t, "steps")
		o := newObject("/live/s/seg/e1r1/a/1.m4s", nil)
		type outcome struct {
			data []byte
			err  error
		}
		const readers = 4
		got := make(chan outcome, readers)
		for range readers {
			go func() {
				var out outcome
				if _, out.err = o.waitHead(context.Background()); out.err != nil {
					got <- out
					return
				}
				for end := false; !end && out.err == nil; {
					var data []byte
					data, end, out.err = o.waitData(context.Background(), int64(len(out.data)))
					out.data = append(out.data, data...)
				}
				got <- out
			}()
		}
		o.begin(size, "video/mp4")
		rest := body
		for i := 0; len(rest) > 0; i++ {
			space := o.space(steps[i%len(steps)])
			n := copy(space, rest)
			o.advance(n)
			rest = rest[n:]
		}
		failure := errors.New("broken")
		if broken {
			o.finish(failure)
		} else {
			o.finish(nil)
		}
		for range readers {
			out := <-got
			if !bytes.Equal(out.data, body) {
				t.Fatalf("read %d bytes, want %d", len(out.data), len(body))
			}
			if broken != errors.Is(out.err, failure) {
				t.Fatalf("broken %v, error %v", broken, out.err)
			}
		}
	})
}
