package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// The loads: closed loops of this many connections, for this long; the playlist
// that both cache for a moment, and the segments that both keep.
const (
	connections = 8
	loadLength  = 8 * time.Second
	pacedRate   = 400 // requests per second for the latency figure
)

// router compares the router with nginx's proxy_cache before the same origin:
// the CPU time of each for the same cached objects, asked for by the same
// client. The sides take turns.
func (b *bench) router() error {
	return b.t.Within(func(t *harness.T) error {
		i := kit.Install(t)
		key, err := newStream(i, "load", kit.SmallLadder())
		if err != nil {
			return err
		}
		kit.Publish(t, kit.Picture{Bitrate: "2M"}, i.RTMPTarget("load", key))
		if err := live(i, "load", 12); err != nil {
			return err
		}
		nginx, workers, err := startNginx(t, i.Origin)
		if err != nil {
			return err
		}
		sides := []side{{"router", i.Router, []int{i.Role["router"].Pid()}}, {"nginx", nginx, workers}}
		var segs, lists []float64
		for n := range b.pairs {
			var perGB, perThousand [2]float64
			for s, sd := range sides {
				paths, playlist, err := objects(i, "load")
				if err != nil {
					return err
				}
				r, err := sd.load(paths)
				if err != nil {
					return err
				}
				perGB[s] = r.cpu / (float64(r.bytes) / 1e9)
				t.Logf("pair %d, %s, segments: %.2f GB in %.1f s, %.3f CPU s/GB, p99 %.2f ms", n+1, sd.name, float64(r.bytes)/1e9, loadLength.Seconds(), perGB[s], r.p99())
				if r, err = sd.load([]string{playlist}); err != nil {
					return err
				}
				perThousand[s] = r.cpu / (float64(r.requests) / 1000)
				t.Logf("pair %d, %s, playlist: %d requests, %.4f CPU s/1,000, p99 %.2f ms", n+1, sd.name, r.requests, perThousand[s], r.p99())
			}
			segs = append(segs, perGB[0]/perGB[1])
			lists = append(lists, perThousand[0]/perThousand[1])
		}
		paths, playlist, err := objects(i, "load")
		if err != nil {
			return err
		}
		r, err := sides[0].paced(append([]string{playlist, playlist, playlist}, paths[len(paths)-2:]...))
		if err != nil {
			return err
		}
		b.figures.Add("router_segment_cpu_ratio", harness.Median(segs), "ratio", "<=1.5")
		b.figures.Add("router_playlist_cpu_ratio", harness.Median(lists), "ratio", "<=1.5")
		b.figures.Add("router_p99_ms", r.p99(), "ms", "-")
		return nil
	})
}

// objects returns the paths of the live window's newest segments and of a
// media playlist.
func objects(i *kit.Installation, stream string) (segments []string, playlist string, err error) {
	m, err := kit.FetchMaster(i.Master(stream))
	if err != nil {
		return nil, "", err
	}
	media, err := kit.FetchMedia(m.Variants[0].URL)
	if err != nil {
		return nil, "", err
	}
	for n, s := range media.Segments {
		if n < len(media.Segments)-10 {
			continue
		}
		u, err := url.Parse(s.URL)
		if err != nil {
			return nil, "", err
		}
		segments = append(segments, u.Path)
	}
	u, err := url.Parse(m.Variants[0].URL)
	if err != nil {
		return nil, "", err
	}
	return segments, u.Path, nil
}

type side struct {
	name string
	base string
	pids []int
}

type result struct {
	cpu      float64
	bytes    int64
	requests int
	latency  []float64 // ms
}

func (r result) p99() float64 { return harness.Quantile(r.latency, 0.99) }

// load fetches the paths round and round on all connections at once.
func (s side) load(paths []string) (result, error) {
	return s.drive(paths, loadLength, nil)
}

// paced fetches the paths at pacedRate.
func (s side) paced(paths []string) (result, error) {
	tick := time.NewTicker(time.Second / pacedRate)
	defer tick.Stop()
	return s.drive(paths, 2*loadLength, tick.C)
}

func (s side) drive(paths []string, length time.Duration, pace <-chan time.Time) (result, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}}
	defer client.CloseIdleConnections()
	for _, p := range paths { // fill the cache, and open a connection
		if _, err := get(client, s.base+p); err != nil {
			return result{}, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	before, err := cpuOf(s.pids...)
	if err != nil {
		return result{}, err
	}
	var (
		r    result
		next atomic.Int64
		mu   sync.Mutex
		wg   sync.WaitGroup
		errs []error
	)
	for range connections {
		wg.Go(func() {
			var latency []float64
			var total int64
			var failed error
			for ctx.Err() == nil && failed == nil {
				if pace != nil {
					select {
					case <-pace:
					case <-ctx.Done():
						continue
					}
				}
				begin := time.Now()
				n, err := get(client, s.base+paths[int(next.Add(1))%len(paths)])
				latency = append(latency, float64(time.Since(begin))/float64(time.Millisecond))
				total, failed = total+n, err
			}
			mu.Lock()
			defer mu.Unlock()
			r.latency = append(r.latency, latency...)
			r.bytes += total
			errs = append(errs, failed)
		})
	}
	wg.Wait()
	after, err := cpuOf(s.pids...)
	r.cpu, r.requests = after-before, len(r.latency)
	if err := errors.Join(append(errs, err)...); err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	return r, nil
}

func get(c *http.Client, u string) (int64, error) {
	resp, err := c.Get(u)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", u, resp.Status)
	}
	return n, err
}

const nginxConf = `
daemon off;
master_process on;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log warn;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  proxy_cache_path %[1]s/cache keys_zone=c:10m max_size=256m use_temp_path=off;
  upstream origin { server %[2]s; keepalive 8; }
  server {
    listen %[3]s;
    location /live/ {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache c;
      proxy_cache_lock on;
      proxy_cache_use_stale updating error timeout;
      proxy_cache_background_update on;
      proxy_ignore_headers Cache-Control Expires Vary Set-Cookie;
      proxy_cache_valid 200 1h;
      location ~ \.(m3u8|mpd)$ {
        proxy_pass http://origin;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_cache c;
        proxy_cache_lock on;
        proxy_cache_use_stale updating error timeout;
        proxy_cache_background_update on;
        proxy_ignore_headers Cache-Control Expires Vary Set-Cookie;
        proxy_cache_valid 200 1s;
      }
    }
  }
}
`

// startNginx starts nginx with proxy_cache before the origin, and returns its
// base URL and its workers.
func startNginx(t *harness.T, origin string) (base string, pids []int, err error) {
	bin, err := kit.FindPart("DIONYSIA_NGINX", "nginx")
	if err != nil {
		return "", nil, err
	}
	port, err := kit.FreePort()
	if err != nil {
		return "", nil, err
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // its workers are not root
		return "", nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, strings.TrimPrefix(origin, "http://"), addr), 0o600); err != nil {
		return "", nil, err
	}
	p := kit.Start(t, "nginx", []string{bin, "-p", dir, "-c", conf, "-e", filepath.Join(dir, "error.log")})
	err = kit.Wait(t.Context(), 15*time.Second, func() error {
		if !p.Running() {
			return fmt.Errorf("nginx: %s: %s", p.Exit(), kit.Tail(p.Log, 2000))
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		_ = c.Close()
		pids = nil
		for _, w := range kit.Descendants(p.Pid()) {
			if strings.HasPrefix(w.Args[0], "nginx: worker") {
				pids = append(pids, w.Pid)
			}
		}
		if len(pids) != 2 {
			return fmt.Errorf("nginx has %d workers", len(pids))
		}
		return nil
	})
	return "http://" + addr, pids, err
}
