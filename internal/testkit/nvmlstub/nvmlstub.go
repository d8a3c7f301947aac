// Package nvmlstub builds a libnvidia-ml.so.1 for tests, which answers for cards
// that the test describes and may change at any time. What is tested loads it as
// it loads the real one: by its path.
package nvmlstub

import (
	"cmp"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

//go:embed testdata/nvml.c
var source string

// Stub is a library and the file that it reads.
type Stub struct {
	t       testing.TB
	dir     string
	driver  string
	load    int
	initial int
	hang    bool
	cards   []Card
	absent  bool
}

// Build compiles the library with gcc. It says that there is no driver until Set.
func Build(t testing.TB) *Stub { return build(t) }

// BuildOld compiles the library of an old driver: without nvmlErrorString,
// architectures, MIG, and what tells of encoders but their utilisation; and with
// the older of the two names of what lowers the clocks.
func BuildOld(t testing.TB) *Stub { return build(t, "-DOLD") }

func build(t testing.TB, flags ...string) *Stub {
	t.Helper()
	s := &Stub{t: t, dir: t.TempDir(), driver: "570.86.15"}
	c := filepath.Join(s.dir, "nvml.c")
	if err := os.WriteFile(c, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-shared", "-fPIC", "-O1", "-o", s.Library(), c, "-ldl"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc is needed to build a stand-in for NVIDIA's library: %v\n%s", err, out)
	}
	return s
}

// Library is the path of the library.
func (s *Stub) Library() string { return filepath.Join(s.dir, "libnvidia-ml.so.1") }

// Set loads the driver, if it isn't, and makes these the host's cards.
func (s *Stub) Set(cards ...Card) {
	s.cards, s.absent, s.initial = slices.Clone(cards), false, 0
	s.write()
}

// SetDriver sets the driver's version; 570.86.15 if it never is.
func (s *Stub) SetDriver(version string) {
	s.driver = version
	s.write()
}

// Unload takes the driver away; Set brings it back, as another load of it: what
// was known of the first one is invalid.
func (s *Stub) Unload() {
	s.absent = true
	s.load++
	s.write()
}

// FailInit lets nvmlInit return an NVML error code, until Set.
func (s *Stub) FailInit(code int) {
	s.initial = code
	s.write()
}

// Hang lets queries on cards not return, until it is called with false.
func (s *Stub) Hang(on bool) {
	s.hang = on
	s.write()
}

func (s *Stub) write() {
	s.t.Helper()
	file := filepath.Join(s.dir, "cards")
	if s.absent {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "init %d\ndriver %s\nload %d\n", s.initial, s.driver, s.load)
	if s.hang {
		b.WriteString("hang 1\n")
	}
	for _, c := range s.cards {
		c.write(&b)
	}
	tmp := file + ".new" // it may be read at any time
	if err := os.WriteFile(tmp, []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, file); err != nil {
		s.t.Fatal(err)
	}
}

// Brands and architectures of NVML.
const (
	BrandTesla, BrandGeForce, BrandNVIDIARTX, BrandNVIDIA, BrandGeForceRTX = 2, 5, 13, 14, 15
	Turing, Ampere, Ada, Hopper, Blackwell                                 = 6, 7, 8, 9, 10
)

// Card is one card. Values has what its queries answer, by the names that nvml.c
// has for them; one that is not there is not supported.
type Card struct {
	UUID, Name, Bus string
	Brand, Arch     int
	Values          map[string]int64
	// Errors has the NVML codes of queries that fail.
	Errors   map[string]int
	Sessions []Session
	// Lost is the NVML code that every query on it returns: 15 when it fell off
	// the bus, 0 while it works.
	Lost int
}

// Session is an encoder session; Codec is NVML's: 0 H.264, 1 HEVC, 2 AV1.
type Session struct{ PID, Codec, Width, Height, FPS, LatencyUS int }

func (c Card) write(b *strings.Builder) {
	fmt.Fprintf(b, "card %s\nname %s\nbus %s\nlost %d\nbrand %d\narch %d\n", c.UUID, c.Name, cmp.Or(c.Bus, "00000000:01:00.0"), c.Lost, c.Brand, c.Arch)
	for k, v := range c.Values {
		fmt.Fprintf(b, "%s %d\n", k, v)
	}
	for k, v := range c.Errors {
		fmt.Fprintf(b, "%s! %d\n", k, v)
	}
	for _, s := range c.Sessions {
		fmt.Fprintf(b, "session %d %d %d %d %d %d\n", s.PID, s.Codec, s.Width, s.Height, s.FPS, s.LatencyUS)
	}
}

// With returns the card with one more value.
func (c Card) With(key string, v int64) Card {
	values := map[string]int64{key: v}
	for k, old := range c.Values {
		if k != key {
			values[k] = old
		}
	}
	c.Values = values
	return c
}

const gib = 1 << 30

// common is what every card answers.
func common(memory int64) map[string]int64 {
	return map[string]int64{"memory": memory, "memory_used": gib / 2, "power": 61500, "temperature": 47, "clocks": 1,
		"encoder": 0, "decoder": 0, "sessions": 0, "fps": 0, "latency": 0}
}

// encodes adds encoders for these codecs to what a card answers.
func encodes(values map[string]int64, codecs ...string) map[string]int64 {
	for _, c := range codecs {
		values["capacity_"+c] = 100
	}
	return values
}

// RTX4090 has two engines and a cap on its sessions. n tells cards apart.
func RTX4090(n int) Card {
	return Card{UUID: UUID(n), Name: "NVIDIA GeForce RTX 4090", Brand: BrandGeForce, Arch: Ada,
		Values: encodes(common(24*gib), "h264", "hevc", "av1")}
}

// L4 has two engines and no cap.
func L4(n int) Card {
	c := Card{UUID: UUID(n), Name: "NVIDIA L4", Brand: BrandNVIDIA, Arch: Ada, Values: encodes(common(23*gib), "h264", "hevc", "av1")}
	return c.With("mig", 0)
}

// A100 has no encoder.
func A100(n int) Card {
	c := Card{UUID: UUID(n), Name: "NVIDIA A100-SXM4-80GB", Brand: BrandNVIDIA, Arch: Ampere, Values: common(80 * gib)}
	return c.With("mig", 0)
}

// MIG is a card with encoders whose MIG mode is on.
func MIG(n int) Card {
	c := Card{UUID: UUID(n), Name: "NVIDIA RTX PRO 6000 Blackwell Server Edition", Brand: BrandNVIDIA, Arch: Blackwell,
		Values: encodes(common(96*gib), "h264", "hevc", "av1")}
	delete(c.Values, "encoder")
	delete(c.Values, "decoder")
	return c.With("mig", 1)
}

// UUID is card n's.
func UUID(n int) string { return fmt.Sprintf("GPU-%08x-1111-2222-3333-444455556666", n) }

// ID is card n's as a device.
func ID(n int) string { return strings.ToLower(UUID(n)) }
