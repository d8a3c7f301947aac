package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const demoStream = "demo"

// startDemo makes sure that the stream demo exists, gives it a new key and
// publishes a test picture to it. The publisher is started again when it ends.
func (d *Dev) startDemo(ctx context.Context, s *store.Store) error {
	key, hash := auth.NewStreamKey()
	err := s.SetStreamKey(ctx, demoStream, hash)
	if errors.Is(err, stream.ErrNotFound) {
		now := time.Now().UTC()
		err = s.CreateStream(ctx, stream.Stream{ID: demoStream, Name: "Test picture", Profile: d.DemoProfile, Grace: 15,
			HoldBack: 12, Window: 60, CreatedAt: now, UpdatedAt: now, Version: 1}, hash)
	}
	if err != nil {
		return fmt.Errorf("creating the stream %s: %w", demoStream, err)
	}
	preset := d.file("demo.ffpreset")
	if err := writePreset(preset, key); err != nil {
		return fmt.Errorf("the test picture: %w", err)
	}
	d.onClose("the test picture's key", func(context.Context) { _ = os.Remove(preset) })
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	d.onClose("the test picture", func(context.Context) { cancel(); <-done })
	go func() {
		defer close(done)
		for run.Err() == nil {
			d.publishDemo(run, preset)
			select {
			case <-run.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	return nil
}

// writePreset writes the stream's name and key where ffmpeg reads them: a
// command line can be seen by everybody.
func writePreset(path, key string) error {
	_ = os.Remove(path) // one left behind may have another mode
	return os.WriteFile(path, []byte("rtmp_playpath="+demoStream+"?key="+key+"\n"), 0o600)
}

// publishDemo runs one ffmpeg that sends a test picture with a clock and a tone.
func (d *Dev) publishDemo(ctx context.Context, preset string) {
	// drawtext takes its font from fontconfig; the clock is the machine's.
	clock := `drawtext=text='%{localtime\:%H\\\:%M\\\:%S}':fontsize=64:fontcolor=white:box=1:boxcolor=black@0.6:boxborderw=12:x=(w-tw)/2:y=h-th-48`
	c, err := startChild(d.log, "demo", d.logs(), syscall.SIGTERM, nil, d.Parts.FFmpeg,
		"-hide_banner", "-loglevel", "warning", "-nostdin", "-re",
		"-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30,"+clock,
		"-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p",
		"-b:v", "3000k", "-maxrate", "3000k", "-bufsize", "3000k", "-g", "60", "-keyint_min", "60", "-sc_threshold", "0",
		"-c:a", "aac", "-b:a", "128k", "-ac", "2",
		"-fpre", preset, "-f", "flv", "rtmp://"+loop(d.Ports.RTMP)+"/live")
	if err != nil {
		d.log.Error("the test picture can't be sent", "error", err)
		return
	}
	select {
	case <-ctx.Done():
		c.close(3 * time.Second)
	case <-c.done:
		d.log.Warn("the test picture's publisher ended; starting it again", "error", c.exited())
	}
}
