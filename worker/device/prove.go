package device

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// The self-test: one second of a small picture.
const testWidth, testHeight, testFrames = 640, 360, 30

// The backoff between self-tests of a device that passes none.
const (
	proveAgain     = time.Minute
	proveAgainMost = 30 * time.Minute
)

// prove tests the encoders that are due, one after the other, for as long as ctx
// lasts.
func (m *Manager) prove(ctx context.Context) {
	for pause(ctx, pollEvery) {
		for _, g := range m.cards() {
			if due := g.due(); len(due) > 0 {
				g.prove(ctx, due)
			}
		}
	}
}

// due returns the codecs that are to be tested now.
func (g *gpu) due() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone != nil || g.proveAt.IsZero() || g.cfg.Now().Before(g.proveAt) || g.cfg.GPACVersion == (gpac.Version{}) {
		return nil
	}
	if g.all {
		return g.claimed()
	}
	return slices.DeleteFunc(slices.Clone(g.claimed()), func(c string) bool { return g.tested[c].OK })
}

// prove tests codecs with an encode each. Where the table has no speed for the
// card, it is measured then.
func (g *gpu) prove(ctx context.Context, codecs []string) {
	g.mu.Lock()
	of := g.kept.key
	g.mu.Unlock()
	outcome, capped := map[string]proof{}, false
	for _, codec := range codecs {
		_, _, err := encode(ctx, g.cfg.Run, gpac.TestEncode{Codec: codec, GPU: g.id, Width: testWidth, Height: testHeight, Frames: testFrames, Sessions: 1})
		if ctx.Err() != nil {
			return
		}
		p := proof{OK: err == nil, At: g.cfg.Now().UTC()}
		if err != nil {
			p.Detail = shorten(encodeWords(err))
			if old, ok := g.keptThrough(codec, encodeWords(err)); ok {
				p, capped = old, true
				g.cfg.Logger.Warn("self-test of an encoder: no session is free; its earlier proof counts", "device", g.id, "codec", codec, "error", err)
			}
		}
		outcome[codec] = p
		g.cfg.Logger.Info("self-test of an encoder", "device", g.id, "codec", codec, "ok", p.OK, "detail", p.Detail)
	}
	if !g.proved(of, outcome, capped) {
		return
	}
	g.save()
	g.mu.Lock()
	_, _, known := g.engine()
	g.mu.Unlock()
	if !known && outcome["h264"].OK {
		if _, err := g.calibrate(ctx); err != nil && ctx.Err() == nil {
			g.cfg.Logger.Warn("measuring the encoders of a card that the table does not have", "device", g.id, "error", err)
		}
	}
}

// encodeWords is GPAC's part of an error of encode's.
func encodeWords(err error) string {
	var e *encodeError
	if errors.As(err, &e) {
		return e.words
	}
	return err.Error()
}

// keptThrough returns the proof that a codec has from before, when the words of its
// self-test say that all the sessions which the driver allows are in use: what
// works for others is not broken.
func (g *gpu) keptThrough(codec, words string) (proof, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	limited := g.state.SessionLimited != nil && *g.state.SessionLimited
	full := strings.Contains(words, "incompatible client key") || // since driver 530
		limited && strings.Contains(words, "OpenEncodeSessionEx failed: out of memory")
	old := g.kept.SelfTest[codec]
	return old, full && old.OK
}

// proved takes in what was tested, and is false when the card is not what it was
// then. With capped some proofs are old ones, and are to be renewed.
func (g *gpu) proved(of key, outcome map[string]proof, capped bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept.key != of {
		return false
	}
	kept := map[string]proof{} // a new one: the old may be being written
	maps.Copy(kept, g.kept.SelfTest)
	maps.Copy(kept, outcome)
	g.kept.SelfTest = kept
	maps.Copy(g.tested, outcome)
	g.all, g.proveAt = false, time.Time{}
	switch proven := len(g.proven()); {
	case proven == len(g.claimed()):
		g.failed = 0
	case proven > 0: // the device is of use without the rest
		g.failed, g.proveAt = 0, g.cfg.Now().Add(proveAgainMost)
	default:
		g.proveAt = g.cfg.Now().Add(min(proveAgain<<min(g.failed, 16), proveAgainMost))
		g.failed++
	}
	if capped {
		g.all, g.proveAt = true, g.cfg.Now().Add(proveAgain)
	}
	return true
}

// save keeps what is known. It writes to a disk, so not with mu, which reports
// wait for.
func (g *gpu) save() {
	g.mu.Lock()
	r := g.kept
	g.mu.Unlock()
	if err := g.cfg.cache().save(r); err != nil {
		g.cfg.Logger.Warn("devices", "error", err)
	}
}

// recheck has all codecs tested again from a time on; none counts until then.
func (g *gpu) recheck(at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all, g.proveAt, g.tested = true, at, map[string]proof{}
}

// The calibration encodes so many pictures more than a short run, which takes the
// start of GPAC and CUDA away, with several sessions for each engine, so that none
// waits for the CPU.
const (
	engineWidth, engineHeight         = 1280, 720
	engineFramesFew                   = 8
	engineFrames                      = 120 // more; with them the picture takes 177 MB
	engineSessions                    = 4   // for each engine
	engineSessionsMost                = 16
	enginePlausible           float64 = 2 // times the table's speed at most
)

// calibrate measures what one engine encodes in px/s, and keeps it.
func (g *gpu) calibrate(ctx context.Context) (int64, error) {
	g.mu.Lock()
	of, n := g.kept.key, g.engines()
	sessions := min(engineSessions*n, engineSessionsMost)
	if limit := g.sessionLimit(); limit > 0 {
		sessions = min(sessions, limit)
	}
	table, tabled := enginePxPerS(g.name, g.architecture())
	g.mu.Unlock()
	t := gpac.TestEncode{Codec: "h264", GPU: g.id, Width: engineWidth, Height: engineHeight, Frames: engineFramesFew, Sessions: sessions}
	_, few, err := encode(ctx, g.cfg.Run, t)
	if err != nil {
		return 0, fmt.Errorf("measuring %s: %w", g.id, err)
	}
	t.Frames += engineFrames
	_, many, err := encode(ctx, g.cfg.Run, t)
	if err != nil {
		return 0, fmt.Errorf("measuring %s: %w", g.id, err)
	}
	if many <= few {
		return 0, fmt.Errorf("measuring %s: %d frames took %s and %d took %s", g.id, engineFramesFew, few, t.Frames, many)
	}
	px := int64(float64(engineWidth*engineHeight*engineFrames*sessions) / (many - few).Seconds() / float64(n))
	if tabled && float64(px) > enginePlausible*float64(table) {
		return 0, fmt.Errorf("measuring %s: %d px/s for an engine can't be; the table says %d", g.id, px, table)
	}
	if !g.measuredAs(of, px) {
		return 0, fmt.Errorf("measuring %s: its driver changed meanwhile", g.id)
	}
	g.save()
	return px, nil
}

// sessionLimit is how many sessions the card's driver allows as far as is known or
// configured, 0 without a limit. The lock is held.
func (g *gpu) sessionLimit() int {
	switch limited := g.state.SessionLimited != nil && *g.state.SessionLimited; {
	case !limited || g.cfg.SessionLimit < 0:
		return 0
	case g.cfg.SessionLimit > 0:
		return g.cfg.SessionLimit
	}
	return sessionCap(g.driver)
}

// measuredAs takes in an engine's speed, and is false when the card is not what it
// was when it was measured.
func (g *gpu) measuredAs(of key, px int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept.key != of {
		return false
	}
	g.kept.PxPerS, g.kept.MeasuredAt, g.measured = px, g.cfg.Now().UTC(), true
	return true
}
