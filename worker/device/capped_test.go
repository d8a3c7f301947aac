package device

import (
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit/nvmlstub"
)

// A card whose sessions are all in use can't be tested, and stays what it was.
func TestASelfTestWithoutAFreeSession(t *testing.T) {
	if !alone(t) {
		return
	}
	stub, enc, now := nvmlstub.Build(t), softwareEncoders(t), newClock()
	stub.Set(nvmlstub.RTX4090(1))
	m := manager(t, Config{NVML: stub.Library(), Run: enc.Run, Now: now.Now})
	id := nvmlstub.ID(1)
	await(t, m, id, "usable", usable)
	tries := len(enc.tries())
	enc.refuse("OpenEncodeSessionEx failed: incompatible client key (21): (no details)")
	g := m.cards()[0]
	g.mu.Lock()
	g.all, g.proveAt = true, now.Now() // as at a start with kept proofs
	g.mu.Unlock()
	testedAgain := func(more int) {
		t.Helper()
		for end := now.Now(); len(enc.tries()) < tries+more || g.due() != nil; {
			if d, _ := m.Device(id); !d.Usable {
				t.Fatalf("not usable: %s; since %s", d.Reason, end)
			}
			if !pause(t.Context(), pollEvery/10) {
				t.Fatal("it is not tested")
			}
		}
	}
	testedAgain(3)
	await(t, m, id, "still usable", usable)
	now.add(proveAgain) // it is tested again, and now it is broken
	enc.refuse("Cannot load libcuda.so.1")
	await(t, m, id, "refused", refusedFor("Cannot load libcuda.so.1"))
}

func TestSessionsOfACalibration(t *testing.T) {
	for _, c := range []struct {
		limited    *bool
		configured int
		want       int
	}{{nil, 0, 0}, {ptr(false), 4, 0}, {ptr(true), 0, 8}, {ptr(true), 2, 2}, {ptr(true), -1, 0}} {
		g := newGPU(Config{SessionLimit: c.configured}, "gpu-1", "card")
		g.driver, g.state.SessionLimited = "570.1", c.limited
		if got := g.sessionLimit(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
