package controller

import (
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// dear is a source that costs more than its profile's price, and that price.
func (f *fleet) dear(profile string) (*stream.SourceMedia, int64) {
	f.t.Helper()
	p, err := f.store.GetProfile(f.t.Context(), profile)
	must(f.t, err)
	media := &stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 1280, Height: 720,
		SAR: stream.Rate{Num: 1, Den: 1}, FPS: stream.Rate{Num: 60, Den: 1}}}
	px := placement.PriceFor(capacity.CPU, p, media).Px
	if px <= f.price(profile) {
		f.t.Fatalf("it costs %d, the profile %d", px, f.price(profile))
	}
	return media, px
}

// says writes what a worker says of a placement's run.
func (f *fleet) says(p stream.Placement, state stream.RunState, refused string, media *stream.SourceMedia) {
	f.t.Helper()
	must(f.t, f.store.PutStatus(f.t.Context(), stream.RunStatus{Stream: p.Stream, Epoch: p.Epoch, State: state, Refused: refused,
		Media: media, Session: p.Source.Session, UpdatedAt: time.Now()}))
}

// A run that its worker has no room for goes to one that has it, at the source's
// real price; where none has, the stream waits and says why.
func TestRefusedRunIsPlacedWhereItFits(t *testing.T) {
	f := newFleet(t)
	f.stream("show", 15)
	media, px := f.dear("240p")
	f.worker("w1", "boot1", px-1)
	f.send("show")
	p := f.placed("show", "the first placement", isPlaced)
	f.says(p, stream.RunRefused, stream.RefusedNoRoom, media)
	b := f.broadcast("show", "that it waits", waits)
	if !contains(b.Reason, "w1/cpu: needs") {
		t.Fatalf("the reason: %q", b.Reason)
	}
	f.placed("show", "the return of its reservation", func(p stream.Placement) bool { return p.State == stream.PlacementEnded })
	f.event("show", "placement.released", "w1 has no room")

	f.worker("w2", "boot1", px)
	p = f.placed("show", "the placement where it fits", isPlaced)
	if p.Worker != "w2" || p.Price != px || p.Epoch != 2 {
		t.Fatalf("placed as %+v, the price is %d", p, px)
	}

	// The worker says so although the placement holds all that it costs.
	f.says(p, stream.RunRefused, stream.RefusedNoRoom, media)
	f.worker("w3", "boot1", px)
	if p = f.placed("show", "the placement elsewhere", func(p stream.Placement) bool { return p.Epoch == 3 }); p.Worker != "w3" {
		t.Fatalf("placed as %+v", p)
	}

	// What runs loses its worker: the price stays the real one.
	f.says(p, stream.RunRunning, "", media)
	f.worker("w2", "boot1", px-1)
	f.loseWorker("w3", false)
	f.broadcast("show", "that it fits nowhere else", func(b stream.Broadcast) bool { return b.Reason != "" })
	f.worker("w4", "boot1", px)
	if p = f.placed("show", "the failover", func(p stream.Placement) bool { return p.Epoch == 4 }); p.Worker != "w4" || p.Price != px {
		t.Fatalf("placed as %+v", p)
	}
}

// A source that no worker can make anything of stays where it was refused.
func TestRefusedSourceStays(t *testing.T) {
	f := newFleet(t)
	f.stream("show", 15)
	f.worker("w1", "boot1", plenty)
	f.worker("w2", "boot1", plenty)
	f.send("show")
	p := f.placed("show", "the placement", isPlaced)
	f.says(p, stream.RunRefused, "source", nil)
	until := time.Now().Add(noRoomAfter + statusEvery + 500*time.Millisecond)
	f.placed("show", "that it stays", func(p stream.Placement) bool {
		if p.Epoch != 1 || !isPlaced(p) {
			t.Fatalf("placed as %+v", p)
		}
		return time.Now().After(until)
	})
}
