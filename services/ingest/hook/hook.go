// Package hook is what mediamtx runs when a path becomes ready or stops being
// so: it tells the ingest agent to look. A hook that is lost only delays, for
// the agent looks twice a second anyway.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// The environment that Run reads besides mediamtx's own. mediamtx passes its
// environment on to its hooks.
const (
	// EnvURL is the agent's base URL.
	EnvURL = "DIONYSIA_HOOK_URL"
	// EnvToken is the credential between mediamtx and the agent.
	EnvToken = "DIONYSIA_HOOK_TOKEN"
)

// timeout bounds a hook: a later one, or the agent's next look, says the same.
const timeout = 2 * time.Second

// Event is the body that the agent gets. mediamtx's query is left out: it
// carries the stream key.
type Event struct {
	Path       string `json:"path"`
	SourceType string `json:"source_type"`
	SourceID   string `json:"source_id"`
}

// Run posts the event named by args[0], ready or not-ready, to the agent.
func Run(ctx context.Context, args []string, getenv func(string) string) error {
	if len(args) != 1 || (args[0] != "ready" && args[0] != "not-ready") {
		return errors.New("usage: hook ready|not-ready")
	}
	base, token := getenv(EnvURL), getenv(EnvToken)
	if base == "" || token == "" {
		return fmt.Errorf("hook: %s and %s must be set", EnvURL, EnvToken)
	}
	b, err := json.Marshal(Event{
		Path: getenv("MTX_PATH"), SourceType: getenv("MTX_SOURCE_TYPE"), SourceID: getenv("MTX_SOURCE_ID"),
	})
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	url := strings.TrimRight(base, "/") + "/hook/" + args[0]
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("hook: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096)) // so that the agent is done
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("hook: the agent answered %s", res.Status)
	}
	return nil
}
