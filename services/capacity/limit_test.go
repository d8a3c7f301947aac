package capacity

import "testing"

func TestUnit(t *testing.T) {
	for resource, want := range map[string]string{ResourceCPU: "px/s", "gpu-1": "px/s", MemoryResource("gpu-1"): "bytes", ResourceSessions: "sessions"} {
		if got := Unit(resource); got != want {
			t.Errorf("%s: %s, want %s", resource, got, want)
		}
	}
}
