package dev

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// whyNot says why the test picture can't be played, as far as the api knows it; page is
// what the router last said instead of its playlist.
func (d *Dev) whyNot(ctx context.Context, page error) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := wire.NewClientWithResponses("http://"+loop(d.Ports.API), wire.WithRequestEditorFn(
		func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+d.adminToken)
			return nil
		}))
	if err != nil {
		return "the api can't be asked: " + err.Error()
	}
	answer, err := client.GetStreamStatusWithResponse(ctx, demoStream)
	if err != nil {
		return "the api does not answer: " + err.Error()
	}
	s := answer.JSON200
	if s == nil {
		return fmt.Sprintf("the api does not know its status: %s: %s", answer.Status(), answer.Body)
	}
	publisher := "what its publisher says is in " + filepath.Join(d.logs(), "demo.log")
	switch s.State {
	case wire.StreamStateOffline:
		return "nothing is published to it; " + publisher
	case wire.StreamStateGrace:
		return "its publisher is gone; " + publisher
	case wire.StreamStateDisabled:
		return "the stream is disabled: dionysia stream update " + demoStream + " --no-disabled"
	case wire.StreamStateFailing:
		return "its transcode fails" + because(s.LastError)
	case wire.StreamStateStarting:
		return "its transcode has started and has no whole segment yet" + because(s.LastError)
	case wire.StreamStateLive:
		return fmt.Sprintf("it is transcoded, and the router does not serve it: %v", page)
	}
	if s.LastError == nil {
		return "no worker has taken it" + because(refusal(ctx, client))
	}
	return "no worker transcodes it" + because(s.LastError)
}

// refusal is what stands against placing the test picture, nil when nothing does.
func refusal(ctx context.Context, client *wire.ClientWithResponses) *string {
	answer, err := client.ExplainPlacementWithResponse(ctx, &wire.ExplainPlacementParams{Stream: demoStream})
	if err != nil || answer.JSON200 == nil {
		return nil // the status is said anyway
	}
	return answer.JSON200.Refusal
}

func because(why *string) string {
	if why == nil {
		return ""
	}
	return ": " + *why
}
