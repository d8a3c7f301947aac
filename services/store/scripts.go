package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

//go:embed lua/*.lua lua/shared/*.lua
var luaFiles embed.FS

// usesLedger, in a script's head, puts lua/shared/ledger.lua before it.
const usesLedger = "Uses: ledger\n"

// loadScripts reads the scripts by their names, without ".lua". Each file's
// head says what its KEYS and ARGV are and what it returns.
func loadScripts() (map[string]*redis.Script, error) {
	ledger, err := luaFiles.ReadFile("lua/shared/ledger.lua")
	if err != nil {
		return nil, fmt.Errorf("reading the scripts: %w", err)
	}
	head := fmt.Sprintf("local PREFIX, RAMP_HOLD, FEED_MAX = '%s', %d, %d\n%s", prefix, stream.RampHold.Milliseconds(), feedMax, ledger)
	entries, err := luaFiles.ReadDir("lua")
	if err != nil {
		return nil, fmt.Errorf("reading the scripts: %w", err)
	}
	scripts := make(map[string]*redis.Script, len(entries))
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		src, err := luaFiles.ReadFile("lua/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the script %s: %w", e.Name(), err)
		}
		text := string(src)
		if strings.Contains(text, usesLedger) {
			text = head + text
		}
		scripts[strings.TrimSuffix(e.Name(), ".lua")] = redis.NewScript(text)
	}
	return scripts, nil
}

// errHeld is a lease that somebody else has; callers report it as ok = false.
var errHeld = errors.New("held")

// codes are the first elements of a script's answer that are not "OK".
var codes = map[string]error{
	"NOT_FOUND": stream.ErrNotFound,
	"EXISTS":    stream.ErrExists,
	"CONFLICT":  stream.ErrConflict,
	"BUSY":      stream.ErrBusy,
	"FENCED":    stream.ErrFenced,
	"IN_USE":    stream.ErrInUse,
	"HELD":      errHeld,
}

// run runs a script and returns what follows "OK" in its answer.
func (s *Store) run(ctx context.Context, c *redis.Client, script string, keys []string, args ...any) ([]string, error) {
	out, err := s.scripts[script].Run(ctx, c, keys, args...).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", script, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("running %s: no answer", script)
	}
	if out[0] == "OK" {
		return out[1:], nil
	}
	switch out[0] {
	case "NO_ROOM":
		return nil, noRoom(out[1:])
	case "UNREADABLE":
		return nil, &NoRoomError{Worker: out[1], Resource: out[2], Unreadable: out[3]}
	case "NO_PROFILE":
		return nil, &stream.ValidationError{What: "stream", Fields: []stream.FieldError{{Field: "profile", Message: "there is no such profile"}}}
	}
	sentinel, ok := codes[out[0]]
	if !ok {
		return nil, fmt.Errorf("running %s: unknown answer %q", script, out)
	}
	if len(out) > 1 {
		return nil, fmt.Errorf("%w: %s", sentinel, strings.Join(out[1:], " "))
	}
	return nil, sentinel
}
