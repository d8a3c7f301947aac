package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/hashicorp/go-hclog"
)

// cacheVersion changes with the meaning of a record.
const cacheVersion = 2

// key is what a result holds for. With another it is measured again.
type key struct {
	Device   string `json:"device"`           // its id
	Hardware string `json:"hardware"`         // name, and a CPU's number of cores
	Driver   string `json:"driver,omitempty"` // NVIDIA's version
	GPAC     string `json:"gpac"`             // version
}

// record is the file of one device.
type record struct {
	Version int `json:"version"`
	key
	// SelfTest holds the encoders' proofs by codec.
	SelfTest map[string]proof `json:"self_test,omitempty"`
	// PxPerS is the measured speed of one core (x264 veryfast) or one NVENC engine
	// (H.264, P3) in px/s, without headroom; 0 when it was not measured.
	PxPerS     int64     `json:"px_per_s,omitempty"`
	MeasuredAt time.Time `json:"measured_at,omitzero"`
}

// proof is the outcome of one codec's self-test.
type proof struct {
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"` // GPAC's words when it failed
	At     time.Time `json:"at"`
}

// cache keeps one file for each device in dir.
type cache struct {
	dir string
	log hclog.Logger
}

var notInName = regexp.MustCompile(`[^a-z0-9-]+`)

func (c cache) file(device string) string {
	return filepath.Join(c.dir, "device-"+notInName.ReplaceAllString(device, "_")+".json")
}

// load returns what is kept for k, or an empty record. A file that can't be read
// or is not ours is ignored, and the log says so.
func (c cache) load(k key) record {
	empty := record{Version: cacheVersion, key: k}
	file := c.file(k.Device)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return empty
	}
	var r record
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && (r.Version != cacheVersion || r.Device != k.Device) {
		err = fmt.Errorf("it is of version %d and device %q", r.Version, r.Device)
	}
	if err != nil {
		c.log.Warn("a kept result is ignored", "file", file, "error", err)
		return empty
	}
	if r.key != k {
		c.log.Info("a kept result is of other hardware or software; it is made again", "file", file,
			"had", fmt.Sprintf("%+v", r.key), "have", fmt.Sprintf("%+v", k))
		return empty
	}
	return r
}

// save writes r at once or not at all: a reader sees the old file or the new one.
func (c cache) save(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("keeping a result: %w", err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("keeping a result: %w", err)
	}
	tmp, err := os.CreateTemp(c.dir, ".device-*")
	if err != nil {
		return fmt.Errorf("keeping a result: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), c.file(r.Device))
	}
	if err != nil {
		return fmt.Errorf("keeping a result: %w", err)
	}
	return nil
}
