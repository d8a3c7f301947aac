package nvmlstub

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Proven writes what a worker's earlier boot would have kept in its cache
// directory (docs/devices.md): that GPAC of that version, as it prints it, encoded
// these codecs on the card.
func (s *Stub) Proven(dir, gpacVersion string, c Card, codecs ...string) {
	s.t.Helper()
	tests := map[string]any{}
	for _, codec := range codecs {
		tests[codec] = map[string]any{"ok": true, "at": time.Now().UTC()}
	}
	id := strings.ToLower(c.UUID)
	b, err := json.Marshal(map[string]any{"version": 2, "device": id, "hardware": c.Name, "driver": s.driver, "gpac": gpacVersion, "self_test": tests})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "device-"+id+".json"), b, 0o644); err != nil {
		s.t.Fatal(err)
	}
}
