package main

import (
	"maps"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

func TestCounters(t *testing.T) {
	c := newCounters()
	for _, now := range []map[string]float64{
		{"register": 10, "kvs": 3},
		{"register": 12, "kvs": 3},
		{"kvs": 3},                     // register was not touched for a while
		{"register": 1, "kvs": 5},      // and is, again
		{"register": 1, "session": 4},  // new
		{"register": 2, "session": 1},  // session began anew between two looks
		{"register": 2, "session": 1},  // nothing
		{"register": 15, "session": 1}, // many
	} {
		c.look(now)
	}
	want := map[string]float64{"register": 2 + 1 + 1 + 13, "kvs": 2, "session": 4 + 1}
	if got := c.grown(); !maps.Equal(got, want) || c.total() != 24 {
		t.Errorf("%v, together %v; want %v", got, c.total(), want)
	}
}

func TestCatalogueWrites(t *testing.T) {
	got := catalogueWrites(`# TYPE consul_fsm_register summary
consul_fsm_register{quantile="0.5"} 0.1
consul_fsm_register_sum 12.5
consul_fsm_register_count 7
consul_fsm_acl_token_count{op="upsert"} 2
consul_fsm_coordinate_batch_update_count 9
consul_fsm_autopilot_count 3
consul_raft_apply 100
consul_fsm_deregister_count NaNsense
`)
	want := map[string]float64{"register": 7, `acl_tokenop="upsert"}`: 2}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNewest(t *testing.T) {
	media := kit.Media{Segments: []kit.Seg{{URL: "http://h/live/s/seg/e3r1/v1/7.m4s"}, {URL: "http://h/live/s/seg/e12r3/v1/8.m4s"}, {URL: "http://h/other"}}}
	if got := newest(media); got != 12 {
		t.Errorf("%d, want 12", got)
	}
	if got := newest(kit.Media{}); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

func TestLeastAhead(t *testing.T) {
	r := kit.Report{Samples: [][]float64{{1, 0, 0.1}, {2, 1, 5}, {3, 2, 2.5}, {4, 3, 6}}}
	if got := leastAhead(r, 1); got != 2.5 {
		t.Errorf("%v, want 2.5", got)
	}
}
