package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"

	"github.com/dionysia-dev/dionysia/services/task"
)

// serveQueue takes start tasks: the quick way to what reconciling finds anyway.
func (w *Worker) serveQueue() error {
	if w.deps.Queue == nil {
		return nil
	}
	w.queue = asynq.NewServer(w.deps.Queue, asynq.Config{Concurrency: 64, Queues: map[string]int{task.Queue(w.cfg.ID): 1},
		TaskCheckInterval: 100 * time.Millisecond, ShutdownTimeout: time.Second, Logger: asynqLog{w.log.Named("asynq")}, LogLevel: asynq.WarnLevel,
		HealthCheckInterval: 5 * time.Second, DelayedTaskCheckInterval: time.Second})
	mux := asynq.NewServeMux()
	mux.HandleFunc(task.TypeStart, func(ctx context.Context, t *asynq.Task) error {
		s, err := task.ParseStart(t)
		if err != nil {
			return err
		}
		if err := w.runs.Sync(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		if err := w.runs.Settled(ctx, s.Stream, s.Epoch); err != nil {
			w.log.Info("a placement has not started yet; its loop goes on", "stream", s.Stream, "epoch", s.Epoch)
		}
		return nil
	})
	if err := w.queue.Start(mux); err != nil {
		return fmt.Errorf("worker: serving the task queue: %w", err)
	}
	return nil
}

// settleTime is how long a task waits for its run; the run needs no task.
const settleTime = task.StartTimeout / 2

// reconcileEvery bounds how long a lost task delays a stream.
const reconcileEvery = 2 * time.Second

func (w *Worker) reconcile() {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	failing := false
	for {
		err := w.runs.Sync(w.ctx)
		if err != nil && !failing && w.ctx.Err() == nil {
			w.log.Warn("can't read what to run; going on with what runs", "error", err)
		}
		failing = err != nil
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// asynqLog writes asynq's log as ours.
type asynqLog struct{ hclog.Logger }

func (l asynqLog) Debug(args ...any) { l.Logger.Debug(fmt.Sprint(args...)) }
func (l asynqLog) Info(args ...any)  { l.Logger.Info(fmt.Sprint(args...)) }
func (l asynqLog) Warn(args ...any)  { l.Logger.Warn(fmt.Sprint(args...)) }
func (l asynqLog) Error(args ...any) { l.Logger.Error(fmt.Sprint(args...)) }
func (l asynqLog) Fatal(args ...any) { l.Logger.Error(fmt.Sprint(args...)) }
