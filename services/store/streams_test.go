package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestStreams(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	first := demo("demo")
	first.Priority, first.Require, first.Prefer, first.Degrade = 70, []stream.Rule{"device=gpu"}, []stream.Rule{"class=a", "datacenter!=ams1"}, true
	must(t, s.CreateStream(ctx, first, "hash1"))
	wantErr(t, s.CreateStream(ctx, demo("demo"), "hash2"), stream.ErrExists)
	if h, err := s.StreamKeyHash(ctx, "demo"); err != nil || h != "hash1" {
		t.Fatalf("key hash %q, %v", h, err)
	}
	got, err := s.GetStream(ctx, "demo")
	must(t, err)
	if got.Version != 1 || got.Name != "Test" || got.CreatedAt.IsZero() || !got.UpdatedAt.Equal(got.CreatedAt) {
		t.Fatalf("got %+v", got)
	}
	first.Version, first.CreatedAt, first.UpdatedAt = 1, got.CreatedAt, got.UpdatedAt
	if !reflect.DeepEqual(got, first) {
		t.Fatalf("read %+v, wrote %+v", got, first)
	}
	edit := got
	edit.Name, edit.Priority, edit.Require, edit.Prefer, edit.Degrade = "Other", 0, nil, []stream.Rule{"device=cpu"}, false
	edit, err = s.UpdateStream(ctx, edit)
	must(t, err)
	if edit.Version != 2 {
		t.Fatalf("version %d after an update", edit.Version)
	}
	_, err = s.UpdateStream(ctx, got)
	wantErr(t, err, stream.ErrConflict)
	if read, err := s.GetStream(ctx, "demo"); err != nil || !reflect.DeepEqual(read, edit) {
		t.Fatalf("read %+v (%v), wrote %+v", read, err, edit)
	}
	must(t, s.SetStreamKey(ctx, "demo", "hash3"))
	if h, _ := s.StreamKeyHash(ctx, "demo"); h != "hash3" {
		t.Fatalf("key hash %q", h)
	}
	bad := demo("demo:x")
	wantErr(t, s.CreateStream(ctx, bad, ""), stream.ErrInvalid)
	bad = demo("other")
	bad.Profile = "missing"
	err = s.CreateStream(ctx, bad, "")
	wantErr(t, err, stream.ErrInvalid)
	if f := stream.FieldErrors(err); len(f) != 1 || f[0].Field != "profile" {
		t.Fatalf("fields %v", f)
	}
	must(t, s.DeleteStream(ctx, "demo"))
	for name, err := range map[string]error{
		"delete": s.DeleteStream(ctx, "demo"), "key": s.SetStreamKey(ctx, "demo", "x"),
		"get": second(s.GetStream(ctx, "demo")), "hash": second(s.StreamKeyHash(ctx, "demo")),
		"update": second(s.UpdateStream(ctx, edit)), "route": second(s.Route(ctx, "demo")),
		"placement": second(s.Placement(ctx, "demo")), "broadcast": second(s.Broadcast(ctx, "demo")),
		"status": second(s.Status(ctx, "demo")), "tail": second(s.LoadTail(ctx, "demo")),
		"source": s.UpdateSource(ctx, "demo", 1, stream.Source{}), "reprice": s.Reprice(ctx, "demo", 1, cpu(1)), "ending": s.SetEnding(ctx, "demo", 1),
	} {
		if !errors.Is(err, stream.ErrNotFound) {
			t.Errorf("%s of a missing stream: got %v, want ErrNotFound", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestListStreams(t *testing.T) {
	s, _, _ := open(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("s%d", i)
		want = append(want, id)
		must(t, s.CreateStream(t.Context(), demo(id), "h"))
	}
	var got []string
	after, pages := "", 0
	for {
		list, next, err := s.ListStreams(t.Context(), after, 3)
		must(t, err)
		pages++
		for _, st := range list {
			got = append(got, st.ID)
		}
		if next == "" {
			break
		}
		after = next
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Fatalf("%d pages of %v", pages, got)
	}
	if list, next, err := s.ListStreams(t.Context(), "s6", 3); err != nil || len(list) != 0 || next != "" {
		t.Fatalf("after the last: %v, %q, %v", list, next, err)
	}
}

func TestProfiles(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	p, _ := stream.Builtin("360p")
	p.Name, p.Version = "mine", 0
	p, err := s.PutProfile(ctx, p)
	must(t, err)
	if p.Version != 1 || p.BuiltIn {
		t.Fatalf("got %+v", p)
	}
	again := p
	again.Version = 0
	wantErr(t, second(s.PutProfile(ctx, again)), stream.ErrConflict)
	p.Segment = 4
	p, err = s.PutProfile(ctx, p)
	must(t, err)
	if read, err := s.GetProfile(ctx, "mine"); err != nil || !reflect.DeepEqual(read, p) || read.Version != 2 {
		t.Fatalf("read %+v (%v), wrote %+v", read, err, p)
	}
	b, _ := stream.Builtin("720p")
	wantErr(t, second(s.PutProfile(ctx, b)), stream.ErrExists)
	wantErr(t, s.DeleteProfile(ctx, "720p"), stream.ErrInUse)
	wantErr(t, second(s.GetProfile(ctx, "none")), stream.ErrNotFound)
	wantErr(t, s.DeleteProfile(ctx, "none"), stream.ErrNotFound)
	list, err := s.ListProfiles(ctx)
	must(t, err)
	if len(list) != len(stream.Builtins())+1 {
		t.Fatalf("%d profiles", len(list))
	}

	st := demo("demo")
	st.Profile = "mine"
	must(t, s.CreateStream(ctx, st, "h"))
	wantErr(t, s.DeleteProfile(ctx, "mine"), stream.ErrInUse)
	st.Version, st.Profile = 1, "360p"
	must(t, second(s.UpdateStream(ctx, st)))
	must(t, s.DeleteProfile(ctx, "mine"))
	st.Version, st.Profile = 2, "mine"
	wantErr(t, second(s.UpdateStream(ctx, st)), stream.ErrInvalid)
}

func TestEvents(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	for i := range 1100 {
		must(t, s.AddEvent(ctx, stream.Event{Stream: "demo", Type: "x", Message: fmt.Sprint(i), Time: time.Unix(int64(i), 0).UTC()}))
	}
	newest, err := s.Events(ctx, "demo", "", 3)
	must(t, err)
	if len(newest) != 3 || newest[2].Message != "1099" || newest[0].Message != "1097" {
		t.Fatalf("newest %+v", newest)
	}
	rest, err := s.Events(ctx, "demo", newest[0].ID, 10)
	must(t, err)
	if len(rest) != 2 || rest[0].ID != newest[1].ID {
		t.Fatalf("after %s: %+v", newest[0].ID, rest)
	}
	if all, err := s.Events(ctx, "demo", "0-0", 5000); err != nil || len(all) > 1000 {
		t.Fatalf("%d events, %v", len(all), err)
	}
	wantErr(t, second(s.Events(ctx, "demo", "+ x", 1)), stream.ErrInvalid)
	if none, err := s.Events(ctx, "none", "", 1); err != nil || none == nil || len(none) != 0 {
		t.Fatalf("got %v, %v", none, err)
	}
}

// What NewestEvents says of many streams is what Events says of each; what can't be
// read of one leaves out that one.
func TestNewestEvents(t *testing.T) {
	s, _, live := open(t)
	ctx := t.Context()
	ids := []string{"none", "bad", "wrong"}
	for i := range 120 { // more than are read at once
		id := fmt.Sprintf("s%d", i)
		ids = append(ids, id)
		for j := range 1 + i%4 {
			must(t, s.AddEvent(ctx, stream.Event{Stream: id, Type: "x", Message: fmt.Sprint(id, j), Time: time.Unix(int64(j), 0).UTC()}))
		}
	}
	c := raw(t, live)
	must(t, c.Set(ctx, "dionysia:events:bad", "no stream", 0).Err())
	must(t, c.XAdd(ctx, &redis.XAddArgs{Stream: "dionysia:events:wrong", Values: []any{"json", "{"}}).Err())
	got, err := s.NewestEvents(ctx, ids, 3)
	if err == nil || !strings.Contains(err.Error(), "bad") || !strings.Contains(err.Error(), "wrong") || len(got) != len(ids)-2 {
		t.Fatalf("%d histories, %v", len(got), err)
	}
	for id, events := range got {
		want, err := s.Events(ctx, id, "", 3)
		if err != nil || !reflect.DeepEqual(events, want) {
			t.Errorf("of %s got %+v, want %+v, %v", id, events, want, err)
		}
	}
	live.Kill()
	if got, err := s.NewestEvents(ctx, ids, 3); err == nil || len(got) != 0 {
		t.Fatalf("without Redis: %d histories, %v", len(got), err)
	}
}
