package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// ReportSeen is a worker's report, how long ago Redis got it, and whether an
// operator drains the worker.
type ReportSeen struct {
	capacity.Report
	Age   time.Duration
	Asked *Drain // nil when nobody does
}

// Draining says why the worker takes nothing new, "" when it does.
func (r ReportSeen) Draining() string {
	switch {
	case r.Drain:
		return "it stops"
	case r.Asked != nil:
		return "an operator asked for it"
	}
	return ""
}

// PutReport stores a worker's report for ReportTTL.
func (s *Store) PutReport(ctx context.Context, r capacity.Report) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the report of worker %s: %w", r.Worker, err)
	}
	if _, err := s.run(ctx, s.live, "report_put", []string{key("report", r.Worker), keyWorkers},
		r.Worker, b, ReportTTL.Milliseconds()); err != nil {
		return fmt.Errorf("writing the report of worker %s: %w", r.Worker, err)
	}
	return nil
}

// Reports returns the workers' reports that have not expired, by worker. Their
// age is measured by Redis' clock alone.
func (s *Store) Reports(ctx context.Context) ([]ReportSeen, error) {
	now, err := s.live.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the time of Redis: %w", err)
	}
	drains, err := s.Drains(ctx)
	if err != nil {
		return nil, err
	}
	list := []ReportSeen{}
	err = s.indexed(ctx, keyWorkers, "report", func(worker, raw string) error {
		r, err := reportSeen(worker, raw, now, drains)
		list = append(list, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the workers' reports: %w", err)
	}
	return list, nil
}

// ReportsOf returns the reports of these workers, in their order; one that has
// expired is missing. Of a large fleet a reader that must not stop for long reads
// a part at a time.
func (s *Store) ReportsOf(ctx context.Context, workers []string) ([]ReportSeen, error) {
	if len(workers) == 0 {
		return nil, nil
	}
	drains, err := s.Drains(ctx)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(workers))
	for i, w := range workers {
		keys[i] = key("report", w)
	}
	var clock *redis.TimeCmd
	var values *redis.SliceCmd
	if _, err := s.live.Pipelined(ctx, func(p redis.Pipeliner) error {
		clock, values = p.Time(ctx), p.MGet(ctx, keys...)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the reports of %d workers: %w", len(workers), err)
	}
	list := make([]ReportSeen, 0, len(workers))
	for i, v := range values.Val() {
		raw, ok := v.(string)
		if !ok {
			continue
		}
		r, err := reportSeen(workers[i], raw, clock.Val(), drains)
		if err != nil {
			return nil, fmt.Errorf("reading the reports of %d workers: %w", len(workers), err)
		}
		list = append(list, r)
	}
	return list, nil
}

// reportSeen decodes a report's value, "<µs> <json>".
func reportSeen(worker, raw string, now time.Time, drains map[string]Drain) (ReportSeen, error) {
	at, doc, _ := strings.Cut(raw, " ")
	var r ReportSeen
	if err := json.Unmarshal([]byte(doc), &r.Report); err != nil {
		return r, fmt.Errorf("decoding the report of worker %s: %w", worker, err)
	}
	r.Age = max(0, now.Sub(micros(at)))
	if d, ok := drains[worker]; ok {
		r.Asked = &d
	}
	return r, nil
}

// indexed reads what the members of a set name, in their order, and drops from
// the set those whose value has expired. A writer adds itself again each time.
func (s *Store) indexed(ctx context.Context, index, kind string, each func(id, raw string) error) error {
	ids, err := s.live.SMembers(ctx, index).Result()
	if err != nil || len(ids) == 0 {
		return err
	}
	sort.Strings(ids)
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = key(kind, id)
	}
	values, err := s.live.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	for i, v := range values {
		raw, ok := v.(string)
		if !ok {
			if err := s.live.SRem(ctx, index, ids[i]).Err(); err != nil {
				return err
			}
			continue
		}
		if err := each(ids[i], raw); err != nil {
			return err
		}
	}
	return nil
}

// PutStatus stores a worker's report on a placement; ErrFenced when one of a
// higher epoch is there.
func (s *Store) PutStatus(ctx context.Context, r stream.RunStatus) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", r.Stream, err)
	}
	if _, err := s.run(ctx, s.live, "status_put", []string{key("status", r.Stream)},
		r.Epoch, b, int(statusTTL.Seconds())); err != nil {
		return fmt.Errorf("writing the status of %s: %w", r.Stream, err)
	}
	return nil
}

// Statuses returns the last reports on streams' placements, of those that have one.
func (s *Store) Statuses(ctx context.Context, ids []string) (map[string]stream.RunStatus, error) {
	list := make(map[string]stream.RunStatus, len(ids))
	for part := range slices.Chunk(ids, 1000) {
		cmds := make([]*redis.StringCmd, len(part))
		if _, err := s.live.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, id := range part {
				cmds[i] = p.HGet(ctx, key("status", id), "json")
			}
			return nil
		}); err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("reading the runs' statuses: %w", err)
		}
		for i, c := range cmds {
			raw, err := c.Bytes()
			if errors.Is(err, redis.Nil) {
				continue
			}
			var r stream.RunStatus
			if err == nil {
				err = json.Unmarshal(raw, &r)
			}
			if err != nil {
				return nil, fmt.Errorf("reading the status of %s: %w", part[i], err)
			}
			list[part[i]] = r
		}
	}
	return list, nil
}

// Status returns the last report on a stream's placement, or ErrNotFound.
// UpdatedAt tells how old it is.
func (s *Store) Status(ctx context.Context, id string) (stream.RunStatus, error) {
	var r stream.RunStatus
	raw, err := s.live.HGet(ctx, key("status", id), "json").Result()
	if err != nil {
		return r, missing(err, "status of stream", id)
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		return r, fmt.Errorf("decoding the status of %s: %w", id, err)
	}
	return r, nil
}
