package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/kit"
	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// The ladder that both sides make of a 720p source at 30 frames per second.
const (
	segment = 2 // seconds
	fps     = 30
)

var ladder = kit.ProfileSpec{Segment: segment,
	Video: []kit.Rung{
		{Name: "540p", Width: 960, Height: 540, Bitrate: 1_500_000, Preset: "veryfast"},
		{Name: "360p", Width: 640, Height: 360, Bitrate: 700_000, Preset: "veryfast"},
	},
	Audio: []kit.Sound{{Name: "stereo", Bitrate: 96_000, Channels: 2}},
}

// source encodes a minute of picture once, so that publishing costs next to
// nothing, and returns the arguments that send it in real time.
func source(t *harness.T, dir string) ([]string, error) {
	file := filepath.Join(dir, "source.flv")
	p := kit.Picture{Width: 1280, Height: 720, Rate: strconv.Itoa(fps), Bitrate: "3000k"}
	var args []string
	for _, a := range p.Args() {
		if a != "-re" {
			args = append(args, a)
		}
	}
	out, err := exec.Command(kit.FFmpeg(t), append(args, "-t", "120", "-f", "flv", file)...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("making the source: %w\n%s", err, out)
	}
	return []string{kit.FFmpeg(t), "-hide_banner", "-loglevel", "warning", "-nostdin", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy"}, nil
}

// transcode compares the CPU time of GPAC and the worker with plain ffmpeg's:
// the same picture through a mediamtx, the same ladder, the same x264 settings,
// fragmented MP4 for HLS. The sides take turns.
func (b *bench) transcode() error {
	src, err := source(b.t, b.t.TempDir())
	if err != nil {
		return err
	}
	var ratios []float64
	for i := range b.pairs {
		ours, err := b.ourSide(src, i == b.pairs-1)
		if err != nil {
			return err
		}
		theirs, err := b.ffmpegSide(src)
		if err != nil {
			return err
		}
		b.t.Logf("pair %d: GPAC and worker %.3f CPU s/s, ffmpeg %.3f CPU s/s: %.3f", i+1, ours, theirs, ours/theirs)
		ratios = append(ratios, ours/theirs)
	}
	b.figures.Add("transcode_cpu_ratio", harness.Median(ratios), "ratio", "<=1.10")
	return nil
}

func (b *bench) ourSide(src []string, measureMemory bool) (cpu float64, err error) {
	err = b.t.Within(func(t *harness.T) error {
		i := kit.Install(t)
		key, err := newStream(i, "bench", ladder)
		if err != nil {
			return err
		}
		kit.Start(t, "publisher", append(src, i.RTMPTarget("bench", key)...))
		if err := live(i, "bench", 3); err != nil {
			return err
		}
		gpac := i.GPACs()
		if len(gpac) != 1 {
			return fmt.Errorf("GPAC processes: %v", gpac)
		}
		if cpu, err = cpuOver(b.window, append(pidsOf(gpac), i.Role["worker"].Pid())...); err != nil {
			return err
		}
		if now := i.GPACs(); len(now) != 1 || now[0].Pid != gpac[0].Pid {
			return errors.New("GPAC was restarted while it was measured")
		}
		if measureMemory {
			for _, role := range []string{"api", "ingest", "router", "worker"} {
				p, ok := kit.ReadProcess(i.Role[role].Pid())
				if !ok {
					return fmt.Errorf("%s is gone", role)
				}
				b.figures.Add("rss_mib_"+role, float64(p.RSS)/(1<<20), "MiB", "-")
			}
		}
		return nil
	})
	return cpu, err
}

func (b *bench) ffmpegSide(src []string) (cpu float64, err error) {
	err = b.t.Within(func(t *harness.T) error {
		mtx := testkit.StartMediaMTX(t, func(p testkit.MediaMTXPorts) []byte {
			return fmt.Appendf(nil, "api: yes\napiAddress: 127.0.0.1:%d\nrtmpAddress: 127.0.0.1:%d\nrtsp: no\nhls: no\nwebrtc: no\nsrt: no\n"+
				"authInternalUsers:\n- user: any\n  permissions: [{action: publish}, {action: read}, {action: api}]\npaths:\n  all_others:\n", p.API, p.RTMP)
		})
		url := "rtmp://" + mtx.Addr(mtx.Ports.RTMP) + "/live/bench"
		kit.Start(t, "publisher", append(src, "-f", "flv", url))
		kit.Eventually(t, 30*time.Second, "the publisher", func() error {
			b, err := kit.FetchOK(mtx.APIURL() + "/v3/paths/get/live/bench")
			if err != nil {
				return err
			}
			if !containsReady(b) {
				return errors.New("not ready")
			}
			return nil
		})
		dir := t.TempDir()
		ff := kit.Start(t, "ffmpeg", ffmpegLadder(kit.FFmpeg(t), url, dir))
		kit.Eventually(t, 30*time.Second, "ffmpeg's third segment", func() error {
			_, err := os.Stat(filepath.Join(dir, "v0", "3.m4s"))
			return err
		})
		cpu, err = cpuOver(b.window, ff.Pid())
		return err
	})
	return cpu, err
}

func containsReady(b []byte) bool {
	s := string(b)
	for _, w := range []string{`"ready":true`, `"ready": true`} {
		for i := 0; i+len(w) <= len(s); i++ {
			if s[i:i+len(w)] == w {
				return true
			}
		}
	}
	return false
}

// ffmpegLadder is the ladder in plain ffmpeg, with the x264 settings that
// worker/gpac gives GPAC.
func ffmpegLadder(ffmpeg, url, dir string) []string {
	n := len(ladder.Video)
	graph := fmt.Sprintf("[0:v]split=%d", n)
	for i := range n {
		graph += fmt.Sprintf("[s%d]", i)
	}
	var maps []string
	streams := ""
	for i, v := range ladder.Video {
		graph += fmt.Sprintf(";[s%d]scale=%d:%d[v%d]", i, v.Width, v.Height, i)
		is := strconv.Itoa(i)
		maps = append(maps, "-map", fmt.Sprintf("[v%d]", i), "-preset:v:"+is, v.Preset, "-b:v:"+is, strconv.FormatInt(v.Bitrate, 10),
			"-maxrate:v:"+is, strconv.FormatInt(v.Bitrate*11/10, 10), "-bufsize:v:"+is, strconv.FormatInt(v.Bitrate*2, 10))
		streams += fmt.Sprintf("v:%d,agroup:a ", i)
	}
	args := append([]string{ffmpeg, "-hide_banner", "-loglevel", "warning", "-nostdin", "-i", url, "-filter_complex", graph}, maps...)
	gop := strconv.Itoa(segment * fps)
	return append(args, "-map", "0:a", "-c:v", "libx264", "-tune", "zerolatency", "-g", gop, "-bf", "0", "-sc_threshold", "0",
		"-force_key_frames", fmt.Sprintf("expr:gte(t,n_forced*%d)", segment), "-forced-idr", "1",
		"-c:a", "aac", "-b:a", strconv.FormatInt(ladder.Audio[0].Bitrate, 10), "-ac", "2",
		"-f", "hls", "-hls_time", strconv.Itoa(segment), "-hls_list_size", "30", "-hls_flags", "delete_segments+independent_segments",
		"-hls_segment_type", "fmp4", "-hls_segment_filename", filepath.Join(dir, "v%v", "%d.m4s"),
		"-var_stream_map", streams+"a:0,agroup:a", "-master_pl_name", "master.m3u8", filepath.Join(dir, "v%v", "index.m3u8"))
}

// newStream makes the profile "bench" and a stream of it.
func newStream(i *kit.Installation, id string, p kit.ProfileSpec) (key string, err error) {
	if err := i.PutProfile("bench", p); err != nil {
		return "", err
	}
	return i.CreateStream(kit.StreamSpec{ID: id, Profile: "bench", Grace: 1})
}

// live waits until the stream's first variant lists n segments.
func live(i *kit.Installation, stream string, n int) error {
	return kit.Wait(context.Background(), 90*time.Second, func() error {
		m, err := kit.FetchMaster(i.Master(stream))
		if err != nil {
			return err
		}
		media, err := kit.FetchMedia(m.Variants[0].URL)
		if err == nil && len(media.Segments) < n {
			err = fmt.Errorf("%d segments", len(media.Segments))
		}
		return err
	})
}
