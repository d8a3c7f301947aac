// Package task is the asynq contract between the controller and the workers:
// payloads, queue names, ids and time-outs. A task is short: it says "start
// stream S at epoch E" and ends when GPAC runs. Losing one only delays a
// stream, because workers also reconcile.
package task

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
)

// TypeStart is the type of the task that starts a placement.
const TypeStart = "placement:start"

// Time-outs of a start task. asynq's lease is 30 s; a task stays well under it.
const (
	StartTimeout  = 20 * time.Second
	StartMaxRetry = 3
)

// Start is TypeStart's payload.
type Start struct {
	Stream string `json:"stream"`
	Epoch  uint64 `json:"epoch"`
}

// Queue returns the name of the queue that the worker serves.
func Queue(worker string) string { return "worker-" + worker }

// NewStart builds the task that tells worker to start s. Its id is unique in
// the worker's queue, so that enqueuing it twice is harmless
// (asynq.ErrTaskIDConflict).
func NewStart(worker string, s Start) (*asynq.Task, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encoding the start of %s: %w", s.Stream, err)
	}
	return asynq.NewTask(TypeStart, b,
		asynq.Queue(Queue(worker)),
		asynq.TaskID(fmt.Sprintf("%s@%d", s.Stream, s.Epoch)),
		asynq.Timeout(StartTimeout),
		asynq.MaxRetry(StartMaxRetry)), nil
}

// ParseStart decodes a TypeStart task. A payload that can't be decoded is not
// retried (asynq.SkipRetry).
func ParseStart(t *asynq.Task) (Start, error) {
	var s Start
	if err := json.Unmarshal(t.Payload(), &s); err != nil || s.Stream == "" || s.Epoch == 0 {
		return Start{}, fmt.Errorf("start task %q: malformed: %w", t.Payload(), asynq.SkipRetry)
	}
	return s, nil
}
